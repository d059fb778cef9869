"""Which frames are to be believed: flags for each, and the verdict over all."""

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import MPIFastWarning
from mpi_fast.flags import Flag, of_rows
from mpi_fast.misfit import Misfit, MisfitMeter, RowNoise
from mpi_fast.verdict import FRAMES, Verdict, foreign_frames

LARGEST = 1e15  # of reduced signals, in noise deviations or so: what is computed of their squares fits float32


class Inspection:
    """Looks at frames of one calibration, before and after they are reconstructed.

    Parameters
    ----------
    calibration : Calibration
    noise : RowNoise, optional
        What the measurement's background frames show.
    judge_images : bool
        Let the images have a say in the verdict, which is meant for those that the packaged network makes: others may
        leave more of the signals unexplained.

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
        """Another one for other frames of the same calibration."""
        return Inspection(self._calibration, noise, judge_images=self._judge_images, meter=self._meter)

    def check_signals(self, rows: NDArray[np.complex64]) -> NDArray[np.uint8]:
        """BAD and DEAD for rows (F, M); bad ones are set to zero there, so that nothing they hold goes anywhere."""
        bad = unusable_frames(rows, self._calibration)
        rows[bad] = 0
        flags = np.where(bad, np.uint8(Flag.BAD), of_rows(rows, self._channel))
        return flags.astype(np.uint8)

    def check_images(
        self, rows: NDArray[np.complex64], image: NDArray[np.floating[Any]], flags: NDArray[np.uint8]
    ) -> tuple[Misfit, NDArray[np.uint8]]:
        """Misfit, and the flags with EMPTY and FOREIGN, of frames that were reconstructed.

        Parameters
        ----------
        rows : (F, M) complex64
        image : (F, N)
        flags : (F,) uint8
            Of `check_signals`, and of what else is known. Frames that are bad, clipped or dead have no say in the
            verdict.
        """
        misfit = self._meter(rows, self._calibration.reduce(rows), image, self.verdict.noise)
        flags = flags.copy()
        readable = (flags & np.uint8(Flag.BAD)) == 0
        flags[readable & ~(image > 0).any(axis=1)] |= np.uint8(Flag.EMPTY)
        foreign = readable & foreign_frames(misfit, self.verdict.noise)
        heard = np.flatnonzero(flags == 0)
        foreign[heard] |= self.verdict.add(misfit.of(heard))
        flags[foreign] |= np.uint8(Flag.FOREIGN)
        self._warn(flags)
        return misfit, flags

    def _warn(self, flags: NDArray[np.uint8]) -> None:
        """Once for each kind of trouble."""
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
                    f"{text} (said once; flags tell which frames)",
                    MPIFastWarning,
                    stacklevel=4,
                )

    def _reason(self) -> str:
        if self.verdict.foreign:
            return f"{self.verdict.reason}; a false alarm once in {FRAMES} frames or more"
        return "they hold what neither noise nor particles explain"


def unusable_frames(rows: NDArray[np.complex64], calibration: Calibration) -> NDArray[np.bool_]:
    """Which frames of rows (F, M) hold NaN, Inf or numbers too large to compute with."""
    with np.errstate(over="ignore", invalid="ignore"):
        size = (np.abs(rows) * calibration.weights).max(axis=1, initial=0.0)
    return np.asarray(~(size < LARGEST))  # of NaN, too
