"""Sliding means over the last frames."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.complex64]
NEVER = np.iinfo(np.int64).min // 2


class SlidingMean:
    """The mean of the frames with the last ``count`` numbers, each of ``rows`` complex values, without missing ones.

    Each mean is computed anew rather than from a running sum, so that older frames leave no rounding errors.
    """

    def __init__(self, count: int, rows: int) -> None:
        self._rows = np.zeros((count, rows), np.complex64)
        self._numbers = np.full(count, NEVER, np.int64)
        self._last = NEVER

    def add(self, number: int, rows: Rows) -> tuple[Rows, int]:
        """Add a frame; returns the mean and its number of frames."""
        count = len(self._numbers)
        if number <= self._last:  # the numbers started again, so the mean starts again
            self._numbers[:] = NEVER
        self._last, place = number, number % count
        self._rows[place], self._numbers[place] = rows, number
        inside = self._numbers > number - count
        used = int(inside.sum())
        if used == 1:
            return rows, 1
        return self._rows[inside].mean(axis=0, dtype=np.complex128).astype(np.complex64), used
