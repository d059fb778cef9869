"""Consensus: from the mean of the samples to the image that the prior and the signals agree on.

The samples' mean is a little too smooth, the more so for scanners unlike those of the training. A few steps of
Douglas-Rachford splitting (ADMM, in other words) make up for it. They alternate between the exact proximal step towards
the signals, and the network as an ordinary denoiser that is told nothing of them, which no scanner can mislead:

    D = denoise(x; level),    image = argmin ||S V^T z - y||^2 / sigma^2 + ||z - (2 D - x)||^2 / level^2,
    x = x + image - D

This is plug-and-play reconstruction (Venkatakrishnan et al. 2013; for MPI Askin et al., "PP-MPI", 2022) from an image
that is nearly right already. A step costs one evaluation of one image.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.guidance import Likelihood
from mpi_fast.samplers import Denoiser

Array = NDArray[np.float32]
LEVEL = 0.2  # noise level of the denoiser, for images of root-mean-square one: best on validation frames
STEPS = 8  # twice as many gain a tenth of a decibel


def agree(denoise: Denoiser, likelihood: Likelihood, image: NDArray[np.floating[Any]], steps: int) -> Array:
    """Take steps towards consensus.

    Parameters
    ----------
    denoise : Denoiser
        Of images alone: `denoiser.ConditionedDenoiser` of `Likelihood.of_nothing`.
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
