"""A sequential test whether the frames fit the calibration, with a bound on its false alarms.

The hypothesis is that the frames fit. Each frame multiplies a running product by a bet against it: a likelihood ratio
whose expectation is at most one under the hypothesis. The product never falls below one, so that evidence for the
calibration does not accumulate (Page's CUSUM). Within n frames such a product exceeds a level L with a probability of
at most n / L (Shin, Ramdas and Rinaldo, "E-detectors", 2024). The level follows from the allowed rate of false alarms,
one in `FRAMES` frames.

There are two bets, on parts of `misfit.Misfit`: ``receiver``, a chi-square for noise alone with as many degrees of
freedom as directions, and ``implausible``, whose mean over fitting frames is at most about one. Both have a margin,
because noise is not exactly Gaussian and images are not exact.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.misfit import Misfit, RowNoise

FRAMES = 10_000  # at most one false alarm in so many, on average
LEVEL = math.log(2 * FRAMES)  # logarithm of the level; the factor 2 is for the two products

# A single frame is foreign if its noise outside is this many times that of background frames; drifts reach 10.
OUTSIDE = 16.0
# ... or if `receiver` is beyond the value that chance produces in one of 14 000 frames, in standard deviations.
DEVIATIONS = 3.8
# `receiver` is used as soon as this many frames have shown the noise of each row.
ENOUGH = 12


@dataclass(frozen=True)
class Bet:
    """A bet that a mean of squares, at most ``usual`` if the frames fit, is ``times`` as large."""

    usual: float
    times: float
    most: float  # maximum that a frame adds to the logarithm, so that no single frame decides

    def log(self, mean: NDArray[Any], directions: NDArray[Any] | float) -> NDArray[np.float64]:
        """Logarithm of the likelihood ratio."""
        gain = mean / self.usual * (1 - 1 / self.times) - math.log(self.times)
        return np.asarray(np.minimum(np.asarray(directions) / 2 * gain, self.most))


RECEIVER = Bet(usual=1.5, times=2.0, most=3.0)
IMAGE = Bet(usual=1.0, times=1.15, most=2.0)
IMAGE_DIRECTIONS = 30.0  # degrees of freedom that match its spread over fitting frames


def foreign_frames(misfit: Misfit, noise: RowNoise) -> NDArray[np.bool_]:
    """Which frames are certainly foreign, each judged alone, (F,) bool."""
    k = np.maximum(misfit.directions, 1)
    chance = (1 - 2 / (9 * k) + DEVIATIONS * np.sqrt(2 / (9 * k))) ** 3  # Wilson and Hilferty's quantile
    with np.errstate(invalid="ignore"):
        return np.asarray((misfit.outside > OUTSIDE) | ((misfit.receiver > chance) & (noise.frames >= ENOUGH)))


@dataclass
class Verdict:
    """State of the test after the frames so far.

    Attributes
    ----------
    noise : RowNoise
        Noise of the rows, from background frames and the frames so far.
    judge_images : bool
        Whether to bet on the images, too.
    receiver, image : float
        Logarithms of the two products.
    frames : int
        Number of frames tested.
    """

    noise: RowNoise
    judge_images: bool = True
    receiver: float = 0.0
    image: float = 0.0
    frames: int = 0

    @property
    def foreign(self) -> bool:
        """Whether the frames so far do not fit the calibration; `FRAMES` gives the rate of false alarms."""
        return max(self.receiver, self.image) >= LEVEL

    @property
    def reason(self) -> str:
        """The probable difference, as a text for users."""
        if self.receiver >= self.image:
            return "the receive chain (delay, resonance, gain) is not the calibration's"
        return "no plausible image explains the signals: other particles, or another drive field"

    def add(self, misfit: Misfit) -> NDArray[np.bool_]:
        """Add frames with signal; returns whether the verdict is foreign after each of them, (F,) bool."""
        known = self.noise.frames + np.arange(len(misfit.image)) >= ENOUGH
        receiver = np.where(known, RECEIVER.log(np.nan_to_num(misfit.receiver), misfit.directions), 0.0)
        image = IMAGE.log(misfit.implausible, IMAGE_DIRECTIONS) * self.judge_images
        out = np.zeros(len(receiver), bool)
        for index, (r, i) in enumerate(zip(receiver, image, strict=True)):
            # Limited to slightly above the level, so that the verdict is withdrawn when the frames fit again.
            self.receiver = min(max(self.receiver, 0.0) + float(r), 2 * LEVEL)
            self.image = min(max(self.image, 0.0) + float(i), 2 * LEVEL)
            out[index] = self.foreign
        self.frames += len(receiver)
        self.noise = self.noise.with_frames(misfit.rows)
        return out
