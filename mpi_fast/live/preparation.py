"""Prepare arriving frames for reconstruction: row selection, flags, background, sliding mean."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.flags import Flag, of_samples
from mpi_fast.inspection import unusable_frames
from mpi_fast.live.frames import Frame, Ready
from mpi_fast.live.running_background import RunningBackground
from mpi_fast.live.sliding import SlidingMean

Periods = Literal["mean", "each"]
Rows = NDArray[np.complex64]
Flags = NDArray[np.uint8]
BAD = int(Flag.BAD)


class Preparation:
    """Prepares the frames of one stream, in their order.

    Parameters
    ----------
    calibration : Calibration
    average : int
        Number of frames, or periods, of the sliding mean.
    periods : str
        ``mean``: the periods of a frame are averaged; ``each``: every period makes an image.
    background_frames : int
        Number of most recent empty frames in the background.

    A flagged frame is not used in means, neither of other frames nor of the background. It makes an image of its own,
    unless it is bad.
    """

    def __init__(self, calibration: Calibration, average: int, periods: Periods, background_frames: int) -> None:
        self._calibration, self._periods = calibration, periods
        self._used: NDArray[np.bool_] = np.asarray(calibration.selection.any(axis=1))
        self._mean = SlidingMean(average, calibration.num_rows)
        self.background = RunningBackground(calibration, background_frames)

    def __call__(self, frames: Sequence[Frame]) -> list[list[Ready]]:
        """Prepare frames, each for one image or one image per period; frames marked empty update the background."""
        found = list(self._rows_of(frames))
        empty = [rows for frame, rows, flags in found if frame.empty for rows in rows[flags == 0]]
        if empty:
            self.background.add(np.stack(empty))
        return [list(self._ready(*one)) for one in found if not one[0].empty]

    def _rows_of(self, frames: Sequence[Frame]) -> Iterator[tuple[Frame, Rows, Flags]]:
        """Rows (J, M) and flags (J,) of each frame; consecutive frames of equal shape are transformed together."""
        start = 0
        while start < len(frames):
            first, stop = frames[start].signals, start + 1
            while stop < len(frames) and _alike(frames[stop].signals, first):
                stop += 1
            signals = np.concatenate([frame.signals for frame in frames[start:stop]])
            rows = self._calibration.select(signals)
            flags = np.zeros(len(rows), np.uint8)
            if signals.dtype.kind in "fiu":
                flags |= of_samples(signals, self._used)
            flags[unusable_frames(rows, self._calibration)] |= np.uint8(BAD)
            periods = len(first)
            for index, frame in enumerate(frames[start:stop]):
                part = slice(index * periods, (index + 1) * periods)
                yield frame, rows[part], flags[part] | np.uint8(frame.flags)
            start = stop

    def _ready(self, frame: Frame, rows: Rows, flags: Flags) -> Iterator[Ready]:
        if self._periods == "mean" and len(rows) > 1:
            rows, flags = _mean_of_periods(rows, flags)
        for period, (one, flag_bits) in enumerate(zip(rows, flags.tolist(), strict=True)):
            averaged = int(not flag_bits & BAD)
            if not flag_bits:
                one, averaged = self._mean.add(frame.number * len(rows) + period, one)
            yield Ready(
                frame.number, period, frame.timestamp, frame.arrived, one - self.background.mean, flag_bits, averaged
            )


def _mean_of_periods(rows: Rows, flags: Flags) -> tuple[Rows, Flags]:
    """The mean of the rows (J, M) that are not bad, with their flags; BAD if all are bad."""
    good = (flags & BAD) == 0
    if not good.any():
        return rows[:1], flags[:1]
    mean = rows[good].mean(axis=0, dtype=np.complex128, keepdims=True).astype(np.complex64)
    return mean, np.bitwise_or.reduce(flags[good], keepdims=True)


def periods_of(signals: NDArray[Any], calibration: Calibration) -> NDArray[Any]:
    """A copy of the signals of one frame, with the axis of periods in front.

    Parameters
    ----------
    signals : (C, V) real, (C, K) complex or (M,) complex, or with an axis of periods before these

    Raises
    ------
    InputError
        For another type.
    MismatchError
        For another shape.
    """
    try:
        signals = np.array(signals)
    except (TypeError, ValueError) as error:
        raise InputError(f"signals: an array of numbers was expected: {error}") from error
    channels, frequencies = calibration.selection.shape
    kinds = {"c": [(channels, frequencies), (calibration.num_rows,)]}
    shapes = kinds.get(signals.dtype.kind, [(channels, calibration.num_samples)])
    if signals.dtype.kind not in "fiuc":
        raise InputError(f"signals of type {signals.dtype}: real samples or complex spectra were expected")
    for shape in shapes:
        if signals.shape == shape:
            return signals[None]
    for shape in shapes:
        if signals.shape[1:] == shape and len(signals):
            return signals
    expected = " or ".join(map(str, shapes))
    raise MismatchError(
        f"signals {signals.dtype} {signals.shape}: of a frame {expected} was expected, or with periods in front"
    )


def _alike(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape
