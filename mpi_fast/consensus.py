"""Consensus: from the mean of the samples to the image that the prior and the signals agree on.

The samples' mean is a little too smooth, the more so for scanners unlike those of the training. A few steps of
Douglas-Rachford splitting (ADMM, in other words) make up for it. They alternate between the exact proximal step towards
the signals, and the network as an ordinary denoiser that is told nothing of them, which no scanner can mislead:

    D = denoise(x; level),    image = argmin ||S V^T z - y||^2 / sigma^2 + ||z - (2 D - x)||^2 / level^2,
    x = x + image - D

The noisier the signals, the more the prior should decide, so the level follows the frame's noise (`level_of`). This is
plug-and-play reconstruction (Venkatakrishnan et al. 2013; for MPI Askin et al., "PP-MPI", 2022) from an image
that is nearly right already. A step costs one evaluation of one image.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.guidance import Likelihood

Array = NDArray[np.float32]
LEVEL, LOWEST, HIGHEST = 0.45, 0.05, 0.5  # see `level_of`: best on validation frames
STEPS = 16  # half as many lose 0.2 dB, half as many again gain 0.1 dB


class Denoiser(Protocol):
    """``D(x; sigma)``: images (F, N) and the noise level of each (F,) -> denoised images (F, N)."""

    def __call__(self, x: Array, sigma: Array, /) -> NDArray[np.floating[Any]]: ...  # noqa: D102


def level_of(likelihood: Likelihood) -> Array:
    """Noise level of the denoiser for each frame, (F,): ``0.45 sqrt(sigma sqrt(N) / ||S||)``, from 0.05 to 0.5.

    Under the root is the noise of the signals relative to that of a white image of root-mean-square one. Over scanners
    and SNRs from 5 to 35 dB the level that is best varies tenfold, and lies within a third of this.
    """
    voxels, power = likelihood.basis.shape[0], np.square(likelihood.singular_values, dtype=np.float64).sum()
    level = LEVEL * np.sqrt(likelihood.noise * np.sqrt(voxels / power))
    return np.asarray(np.clip(level, LOWEST, HIGHEST), dtype=np.float32)


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
    agreed, level = x, level_of(likelihood)
    for _ in range(steps):
        denoised = np.asarray(denoise(x, level), dtype=np.float32)
        agreed = likelihood.combine((2 * denoised - x)[:, None], level)[:, 0]
        x = x + agreed - denoised
    return agreed
