"""Do the data belong to the calibration? A running verdict over frames, with a bound on its false alarms.

Each frame multiplies a bet against "they do". A bet is a likelihood ratio whose expectation is at most one while they
do, so nobody wins for long against the truth; whatever was lost before is forgiven (the larger of the product and one
is kept: Page's CUSUM). Such a product exceeds a level L with a probability of at most n / L within n frames (Shin,
Ramdas and Rinaldo, "E-detectors", 2024), so the level follows from the false alarms that are allowed: one in `FRAMES`
frames.

The bets are on `misfit.Misfit`: ``receiver``, in which noise is a chi-square of as many degrees of freedom as there are
directions, and ``implausible``, whose mean over right frames is at most about one. Both with some reserve, for noise is
not Gaussian, and no image is found exactly.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.misfit import Misfit, RowNoise

FRAMES = 10_000  # at most one false alarm in so many, on average
LEVEL = math.log(2 * FRAMES)  # of two products

# A frame is foreign for itself where noise outside is so many times what background frames show: drifts reach 10.
OUTSIDE = 16.0
# ... and where `receiver` is beyond what chance makes of it in one of 14 000 frames.
DEVIATIONS = 3.8
# From so many frames that show the noise of each row on, `receiver` is believed.
ENOUGH = 12


@dataclass(frozen=True)
class Bet:
    """A bet on a mean of squares that is at most ``usual`` if all is right: that it is ``times`` as large."""

    usual: float
    times: float
    most: float  # that a frame may add to the logarithm: one frame alone decides nothing

    def log(self, mean: NDArray[Any], directions: NDArray[Any] | float) -> NDArray[np.float64]:
        """Logarithm of the likelihood ratio."""
        gain = mean / self.usual * (1 - 1 / self.times) - math.log(self.times)
        return np.asarray(np.minimum(np.asarray(directions) / 2 * gain, self.most))


RECEIVER = Bet(usual=1.5, times=2.0, most=3.0)
IMAGE = Bet(usual=1.0, times=1.15, most=2.0)
IMAGE_DIRECTIONS = 30.0  # as many as its spread over right frames is that of


def foreign_frames(misfit: Misfit, noise: RowNoise) -> NDArray[np.bool_]:
    """Which frames are foreign beyond doubt, each for itself, (F,) bool."""
    k = np.maximum(misfit.directions, 1)
    chance = (1 - 2 / (9 * k) + DEVIATIONS * np.sqrt(2 / (9 * k))) ** 3  # Wilson and Hilferty's quantile
    with np.errstate(invalid="ignore"):
        return np.asarray((misfit.outside > OUTSIDE) | ((misfit.receiver > chance) & (noise.frames >= ENOUGH)))


@dataclass
class Verdict:
    """What the frames so far say.

    Attributes
    ----------
    noise : RowNoise
        Of the rows: what background frames show, and the frames so far.
    judge_images : bool
        Whether to bet on the images, too.
    receiver, image : float
        Logarithms of the two products.
    frames : int
        That have been looked at.
    """

    noise: RowNoise
    judge_images: bool = True
    receiver: float = 0.0
    image: float = 0.0
    frames: int = 0

    @property
    def foreign(self) -> bool:
        """Whether the frames so far do not belong to the calibration; see `FRAMES` for how often that is wrong."""
        return max(self.receiver, self.image) >= LEVEL

    @property
    def reason(self) -> str:
        """What they differ in, for people."""
        if self.receiver >= self.image:
            return "the receive chain (delay, resonance, gain) is not the calibration's"
        return "no plausible image explains the signals: other particles, or another drive field"

    def add(self, misfit: Misfit) -> NDArray[np.bool_]:
        """Take in frames that hold signal; returns, after each, whether the verdict is foreign, (F,) bool."""
        known = self.noise.frames + np.arange(len(misfit.image)) >= ENOUGH
        receiver = np.where(known, RECEIVER.log(np.nan_to_num(misfit.receiver), misfit.directions), 0.0)
        image = IMAGE.log(misfit.implausible, IMAGE_DIRECTIONS) * self.judge_images
        out = np.zeros(len(receiver), bool)
        for index, (r, i) in enumerate(zip(receiver, image, strict=True)):
            # Not far beyond the level, so that it is taken back when things are right again.
            self.receiver = min(max(self.receiver, 0.0) + float(r), 2 * LEVEL)
            self.image = min(max(self.image, 0.0) + float(i), 2 * LEVEL)
            out[index] = self.foreign
        self.frames += len(receiver)
        self.noise = self.noise.with_frames(misfit.rows)
        return out
