"""Consensus: from the mean of the samples to the image that the prior and the signals agree on.

The samples' mean is a little too smooth, the more so for scanners unlike those of the training. A few steps of
Douglas-Rachford splitting (ADMM, in other words) make up for it. They alternate between the exact proximal step towards
the signals, and the network as an ordinary denoiser that is told nothing of them, which no scanner can mislead:

    D = denoise(x; level),    m = g (x - D),    image = argmin ||S V^T z - y||^2 / sigma^2 + ||z - (D - m)||^2 / r^2,
    x = image + ratio m

The noisier the signals, the more the prior should decide, so the level follows the frame's noise (`level_of`). From
step to step it falls by a constant ratio, from seven times that to a third of it (`falling`): high levels come fast to
what is right at large, low ones keep what is fine. This is plug-and-play reconstruction (Venkatakrishnan et al. 2013;
for MPI Askin et al., "PP-MPI", 2022) from an image that is nearly right already. A step costs one evaluation of one
image.

m is ADMM's multiplier times level^2, so the ratio's square would keep the multiplier as it is. Its first power lets it
grow while the level falls, which is 0.2 and 0.4 dB better at SNRs of 15 and 25 dB. Where signals are noisy it gathers
their noise, and only g of it is kept (`kept_of`); with g = 0 this would be half-quadratic splitting, which has none.

From step to step the network sees the image in another of its `symmetry.symmetries`, so that what it does wrong differs
(as in "Equivariant plug-and-play image reconstruction", Terris et al. 2024).

Where the signals are so noisy that many images agree with them as well, the samples' mean says more than any one of
these: it keeps a share in the image (`share_of`). And the denoiser is then sure of too much, so what it says counts as
a little less certain: r = widening level (`widening_of`).
"""

from itertools import cycle
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.guidance import Likelihood
from mpi_fast.symmetry import symmetries

Array = NDArray[np.float32]
LEVEL, LOWEST, HIGHEST = 0.45, 0.06, 0.5  # see `level_of`: best on validation frames
FIRST, LAST, ENOUGH = 7.0, 1 / 3, 8  # see `falling`: likewise; LOWEST * LAST is as low as training goes
DOUBTFUL, SHARE, WIDENING = 0.17, 0.8, 1.6  # see `share_of` and `widening_of`: likewise
NOISY, DAMPING = 0.3, 2.0  # see `kept_of`: likewise
LEAST = 0.3  # see `width_of`: on frames of random scanners
STEPS = 16  # half as many lose 0.5 to 0.9 dB, twice as many gain 0.2 and 0.6 dB, from 25 dB on only


class Denoiser(Protocol):
    """``D(x; sigma)``: images (F, N) and the noise level of each (F,) -> denoised images (F, N)."""

    def __call__(self, x: Array, sigma: Array, /) -> NDArray[np.floating[Any]]: ...  # noqa: D102


def level_of(likelihood: Likelihood) -> Array:
    """Noise level about which the denoiser's falls, for each frame: ``0.45 sqrt(sigma sqrt(N) / ||S||)``, 0.06 to 0.5.

    Under the root is the noise of the signals relative to that of a white image of root-mean-square one. Of levels that
    do not fall the best would vary tenfold over scanners and SNRs from 5 to 35 dB, and lie within a third of this.

    Returns
    -------
    (F,) float32
    """
    voxels, power = likelihood.basis.shape[0], np.square(likelihood.singular_values, dtype=np.float64).sum()
    level = LEVEL * np.sqrt(likelihood.noise * np.sqrt(voxels / power))
    return np.asarray(np.clip(level, LOWEST, HIGHEST), dtype=np.float32)


def falling(steps: int) -> tuple[Array, float]:
    """Noise levels of the steps relative to `level_of`, (steps,), and the ratio of each to the one before.

    They fall geometrically from 7 to 1/3. Fewer than 8 steps cannot make up for what such a range spoils on its way, so
    they stay nearer to 1.
    """
    intervals = max(steps - 1, 0)
    reach = min(1.0, intervals / (ENOUGH - 1))
    ratio = (LAST / FIRST) ** (reach / max(intervals, 1))
    return np.asarray(FIRST**reach * ratio ** np.arange(steps), dtype=np.float32), ratio


def share_of(level: NDArray[np.floating[Any]]) -> Array:
    """Share of the samples' mean in the image, ``0.8 (level - 0.17)`` or nothing, for the level of each frame.

    At an SNR of 5 dB it is 0.2 or so; from 20 dB on it is nothing.
    """
    return np.asarray(SHARE * np.maximum(level - DOUBTFUL, 0.0), dtype=np.float32)


def widening_of(level: NDArray[np.floating[Any]]) -> Array:
    """Spread of the proximal step relative to its noise level, ``1 + 1.6 (level - 0.17)`` or one, for each frame."""
    return np.asarray(1.0 + WIDENING * np.maximum(level - DOUBTFUL, 0.0), dtype=np.float32)


def kept_of(level: NDArray[np.floating[Any]]) -> Array:
    """What each step keeps of the multiplier, ``1 - 2 (level - 0.3)`` or all, for the level of each frame.

    At an SNR of 5 dB it is 0.8 or so; from 10 dB on it is all.
    """
    return np.asarray(1.0 - DAMPING * np.maximum(level - NOISY, 0.0), dtype=np.float32)


def width_of(level: NDArray[np.floating[Any]]) -> Array:
    """Width of the image's uncertainty, ``0.3 + level``, for the level of each frame; see `settle`."""
    return np.asarray(LEAST + level, dtype=np.float32)


def settle(
    samples: NDArray[Any], agreed: NDArray[Any], share: NDArray[Any], width: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The image, and how uncertain it is.

    How far samples are from the image, r, says where it is a guess. Errors also grow with the image itself: of scanners
    like those of the training, at all SNRs, some 95 % lie within 1.96 times ``width sqrt(r (r + image))``, where a
    multiple of r alone is too wide for dark voxels and too narrow for bright ones.

    Parameters
    ----------
    samples : (F, samples, N)
    agreed : (F, N)
        What they agreed on.
    share : (F,)
        Of the samples' mean in the image, `share_of`.
    width : (F,)
        `width_of`.

    Returns
    -------
    image, deviation : (F, N)
        The image is not yet cut at zero.
    """
    image = agreed + share[:, None] * (samples.mean(axis=1) - agreed)
    apart = spread_about(image, samples)
    return image, width[:, None] * np.sqrt(apart * (apart + np.maximum(image, 0)))


def spread_about(image: NDArray[Any], samples: NDArray[Any]) -> NDArray[Any]:
    """Root-mean-square deviation of samples (F, S, N) from an image (F, N).

    Mirrored samples have, to first order, their true mean, so it divides by their number.
    """
    return np.asarray(np.sqrt(np.square(samples - image[:, None]).mean(axis=1)))


def agree(
    denoise: Denoiser, likelihood: Likelihood, image: NDArray[np.floating[Any]], steps: int, grid: tuple[int, ...]
) -> Array:
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
    grid : (ny, nx)
        Image size.

    Returns
    -------
    (F, N) float32
    """
    x: Array = np.array(image, dtype=np.float32)
    agreed, level = x, level_of(likelihood)
    widening, kept = widening_of(level), kept_of(level)[:, None]
    factors, ratio = falling(steps)
    for factor, where in zip(factors, cycle(symmetries(grid)), strict=False):
        sigma = factor * level
        shown = np.empty_like(x)
        shown[:, where] = x
        denoised = np.asarray(denoise(shown, sigma), dtype=np.float32)[:, where]
        multiplier: Array = kept * (x - denoised)
        agreed = likelihood.combine((denoised - multiplier)[:, None], widening * sigma)[:, 0]
        x = agreed + np.float32(ratio) * multiplier
    return agreed
