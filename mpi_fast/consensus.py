"""Consensus: from the mean of the samples to the image that the network and the signals agree on.

The network's mean is a little too smooth, the more so for scanners unlike those of its training. A few steps of
Douglas-Rachford splitting (ADMM, in other words) between the denoiser at one low noise level, and the exact proximal
step towards the signals, make up for it:

    D = denoise(x; level),    image = argmin ||S V^T z - y||^2 / sigma^2 + ||z - (2 D - x)||^2 / level^2,
    x = x + image - D

As in plug-and-play reconstruction (Venkatakrishnan et al. 2013; for MPI Askin et al., "PP-MPI", 2022), but with a
denoiser that sees the signals, and from an image that is nearly right: a step costs one evaluation of one image, and
five suffice.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.guidance import Likelihood
from mpi_fast.samplers import Denoiser

Array = NDArray[np.float32]
LEVEL = 0.2  # noise level of the denoiser, for images of root-mean-square one: best on validation frames


def agree(denoise: Denoiser, likelihood: Likelihood, image: NDArray[np.floating[Any]], steps: int) -> Array:
    """Take steps towards consensus.

    Parameters
    ----------
    denoise : Denoiser
        Given the signals, and without guidance after the network, which the splitting replaces.
    likelihood : Likelihood
        Signals of the frames, for images of root-mean-square about one.
    image : (F, N) float32
        Where to start.
    steps : int
        Evaluations of the network; none returns the image as it is.

    Returns
    -------
    (F, N) float32
    """
    x: Array = np.array(image, dtype=np.float32)
    agreed = x
    for _ in range(steps):
        denoised = np.asarray(denoise(x, LEVEL), dtype=np.float32)
        agreed = likelihood.combine((2 * denoised - x)[:, None], LEVEL)[:, 0]
        x = x + agreed - denoised
    return agreed
