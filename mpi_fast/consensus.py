"""Consensus: from the mean of the samples to the image that the prior and the signals agree on.

The samples' mean is a little too smooth, the more so for scanners unlike those of the training. A few steps of
Douglas-Rachford splitting (ADMM, in other words) make up for it. They alternate between the exact proximal step towards
the signals, and the network as an ordinary denoiser that is told nothing of them, which no scanner can mislead:

    D = denoise(x; level),    image = argmin ||S V^T z - y||^2 / sigma^2 + ||z - (2 D - x)||^2 / level^2,
    x = x + image - D

The noisier the signals, the more the prior should decide, so the level follows the frame's noise (`level_of`). This is
plug-and-play reconstruction (Venkatakrishnan et al. 2013; for MPI Askin et al., "PP-MPI", 2022) from an image
that is nearly right already. A step costs one evaluation of one image.

Where the signals are so noisy that many images agree with them as well, the samples' mean says more than any one of
these: it keeps a share in the image (`share_of`).
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.guidance import Likelihood

Array = NDArray[np.float32]
LEVEL, LOWEST, HIGHEST = 0.45, 0.05, 0.5  # see `level_of`: best on validation frames
DOUBTFUL, SHARE = 0.17, 2.0  # see `share_of`: likewise
STEPS = 16  # half as many lose 0.4 dB at 25 dB, twice as many gain 0.1 dB


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


def share_of(level: NDArray[np.floating[Any]]) -> Array:
    """Share of the samples' mean in the image, ``2 (level - 0.17)`` or nothing, for the level of each frame.

    At an SNR of 5 dB it is 0.4 or so, and worth 0.2 dB; from 20 dB on it is nothing.
    """
    return np.asarray(SHARE * np.maximum(level - DOUBTFUL, 0.0), dtype=np.float32)


def settle(samples: NDArray[Any], agreed: NDArray[Any], share: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The image, and how uncertain it is.

    Parameters
    ----------
    samples : (F, samples, N)
    agreed : (F, N)
        What they agreed on.
    share : (F,)
        Of the samples' mean.

    Returns
    -------
    image, deviation : (F, N)
        The root-mean-square deviation of the samples from the image, ``1 + share`` times: in doubt samples are more
        alike than they should be. Mirrored ones have, to first order, their true mean, so it divides by their number.
    """
    image = agreed + share[:, None] * (samples.mean(axis=1) - agreed)
    deviation = np.sqrt(np.square(samples - image[:, None]).mean(axis=1))
    return image, (1 + share[:, None]) * deviation


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
