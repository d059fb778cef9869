"""The background signal of the empty scanner, from the most recent frames marked empty."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mpi_fast.background import without_outliers
from mpi_fast.calibration import Calibration
from mpi_fast.misfit import RowNoise


class RunningBackground:
    """Mean and noise of the last ``count`` empty frames, with single outliers replaced.

    Attributes
    ----------
    mean : (M,) complex64
        Mean frame; zero before the first empty frame.
    noise : RowNoise
    frames : int
        Number of frames in the mean.
    """

    def __init__(self, calibration: Calibration, count: int) -> None:
        self._calibration = calibration
        self._channel = np.nonzero(calibration.selection)[0]
        self._rows = np.zeros((count, calibration.num_rows), np.complex64)
        self._seen = 0
        self.mean: NDArray[np.complex64] = np.zeros(calibration.num_rows, np.complex64)
        self.noise = RowNoise.unknown(calibration.num_rows)

    @property
    def frames(self) -> int:
        """Number of empty frames in the mean."""
        return min(self._seen, len(self._rows))

    def add(self, rows: NDArray[np.complex64]) -> None:
        """Add finite frames (F, M) in the order of acquisition."""
        for one in rows:
            self._rows[self._seen % len(self._rows)] = one
            self._seen += 1
        # In order of time, because outliers are found by comparison with the frames before and after.
        ordered = np.roll(self._rows, -self._seen, axis=0) if self._seen > len(self._rows) else self._rows[: self._seen]
        cleaned, _ = without_outliers(ordered.T, self._channel)
        mean = cleaned.mean(axis=1, dtype=np.complex128)
        energy = np.square(np.abs(cleaned - mean[:, None]), dtype=np.float64).sum(axis=1)
        self.mean = mean.astype(np.complex64)
        self.noise = RowNoise.of_background(self._calibration, energy, self.frames)

    def noise_of_means(self, averaged: int) -> RowNoise:
        """Noise of means of ``averaged`` frames after subtraction of this background."""
        if self.noise.variance is None:
            return self.noise
        return replace(self.noise, variance=self.noise.variance * (1 / averaged + 1 / self.frames))
