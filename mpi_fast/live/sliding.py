"""Means over the last frames, a new one with every frame."""

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.complex64]
NEVER = np.iinfo(np.int64).min // 2


class SlidingMean:
    """The mean of the last ``count`` frames of ``rows`` complex numbers, by their numbers; missing ones are left out.

    Nothing is subtracted from a running sum: a frame that has left the mean has left it without a trace.
    """

    def __init__(self, count: int, rows: int) -> None:
        self._rows = np.zeros((count, rows), np.complex64)
        self._numbers = np.full(count, NEVER, np.int64)
        self._last = NEVER

    def add(self, number: int, rows: Rows) -> tuple[Rows, int]:
        """Take in a frame; returns the mean, and of how many frames it is."""
        count = len(self._numbers)
        if number <= self._last:  # the numbers began anew, and so does the mean
            self._numbers[:] = NEVER
        self._last, place = number, number % count
        self._rows[place], self._numbers[place] = rows, number
        inside = self._numbers > number - count
        used = int(inside.sum())
        if used == 1:
            return rows, 1
        return self._rows[inside].mean(axis=0, dtype=np.complex128).astype(np.complex64), used
