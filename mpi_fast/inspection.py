"""Tests of frames: flags for each frame, and the verdict over all."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import MPIFastWarning
from mpi_fast.flags import Flag, of_rows
from mpi_fast.misfit import Misfit, MisfitMeter, RowNoise
from mpi_fast.verdict import FRAMES, Verdict, foreign_frames

LARGEST = 1e15  # limit of reduced signals, roughly in noise deviations, so that their squares fit float32


class Inspection:
    """Tests frames of one calibration, before and after their reconstruction.

    Parameters
    ----------
    calibration : Calibration
    noise : RowNoise, optional
        Noise in the measurement's background frames.
    judge_images : bool
        Use the images for the verdict. This is meant for the network of the package; images of other networks may leave
        more of the signals unexplained.
    meter : MisfitMeter, optional
        Meter of this calibration, if there is one already; a new one takes time to prepare.

    Attributes
    ----------
    verdict : Verdict
    """

    def __init__(
        self,
        calibration: Calibration,
        noise: RowNoise | None = None,
        *,
        judge_images: bool = True,
        meter: MisfitMeter | None = None,
    ) -> None:
        self._judge_images = judge_images
        self._calibration = calibration
        self._channel = np.nonzero(calibration.selection)[0]
        self._meter = meter or MisfitMeter(calibration)
        self.verdict = Verdict(noise or RowNoise.unknown(calibration.num_rows), judge_images)
        self._warned = Flag(0)

    def restarted(self, noise: RowNoise | None = None) -> "Inspection":
        """A new inspection for other frames of the same calibration."""
        return Inspection(self._calibration, noise, judge_images=self._judge_images, meter=self._meter)

    def check_signals(self, rows: NDArray[np.complex64]) -> NDArray[np.uint8]:
        """Flags BAD and DEAD for rows (F, M); bad rows are set to zero in place, so that they affect nothing else."""
        bad = unusable_frames(rows, self._calibration)
        rows[bad] = 0
        flags = np.where(bad, np.uint8(Flag.BAD), of_rows(rows, self._channel))
        return flags.astype(np.uint8)

    def check_images(
        self, rows: NDArray[np.complex64], image: NDArray[np.floating[Any]], flags: NDArray[np.uint8]
    ) -> tuple[Misfit, NDArray[np.uint8]]:
        """Misfit of reconstructed frames, and flags that now include EMPTY and FOREIGN.

        Parameters
        ----------
        rows : (F, M) complex64
        image : (F, N)
        flags : (F,) uint8
            Flags by `check_signals` and from other sources. Bad, clipped and dead frames do not enter the verdict.
        """
        misfit = self._meter(rows, self._calibration.reduce(rows), image, self.verdict.noise)
        flags = flags.copy()
        readable = (flags & np.uint8(Flag.BAD)) == 0
        flags[readable & ~(image > 0).any(axis=1)] |= np.uint8(Flag.EMPTY)
        foreign = readable & foreign_frames(misfit, self.verdict.noise)
        usable = np.flatnonzero(flags == 0)
        foreign[usable] |= self.verdict.add(misfit.of(usable))
        flags[foreign] |= np.uint8(Flag.FOREIGN)
        self._warn(flags)
        return misfit, flags

    def _warn(self, flags: NDArray[np.uint8]) -> None:
        """Warn once for each kind of fault."""
        for flag, text in (
            (Flag.BAD, "NaN, Inf or numbers too large: such frames have no image"),
            (Flag.CLIPPED, "samples stay at a channel's largest or smallest value: the receiver was overdriven"),
            (Flag.DEAD, "a channel that the calibration uses is silent"),
            (Flag.FOREIGN, f"the signals do not belong to the calibration: {self._reason()}"),
        ):
            frames = np.flatnonzero(flags & np.uint8(flag))
            if frames.size and not self._warned & flag:
                self._warned |= flag
                warnings.warn(
                    f"{frames.size} of {len(flags)} frames reconstructed together, from number {frames[0]} of these: "
                    f"{text} (reported once; the flags mark all such frames)",
                    MPIFastWarning,
                    stacklevel=4,
                )

    def _reason(self) -> str:
        if self.verdict.foreign:
            return f"{self.verdict.reason}; a false alarm once in {FRAMES} frames or more"
        return "they hold what neither noise nor particles explain"


def unusable_frames(rows: NDArray[np.complex64], calibration: Calibration) -> NDArray[np.bool_]:
    """Which frames of rows (F, M) contain NaN, Inf or numbers too large to compute with, (F,) bool."""
    with np.errstate(over="ignore", invalid="ignore"):
        size = (np.abs(rows) * calibration.weights).max(axis=1, initial=0.0)
    return np.asarray(~(size < LARGEST))  # also true for NaN
