"""The resolution of a calibration, known before any frame is measured: the resolution matrix of its linear estimate.

Signals ``y = S V^T x + sigma xi`` and a white prior of deviation r have the posterior mean ``V diag(f) V^T x`` plus
noise, with ``f = S^2 / (S^2 + sigma^2 / r^2)`` (see `likelihood`). That product is the resolution matrix (Backus and
Gilbert; Menke, "Geophysical Data Analysis", chapter 4): column i is the image of a point at voxel i. Its diagonal is
the share of a voxel's own value that returns in it, from 0 where nothing is seen to 1 where the voxel is fully
resolved. A point that is spread over d voxels returns with 1/d, so the inverse of the diagonal is the size of a
resolved cell in voxels. The trace, the sum of f, is the effective number of measured values.

This estimate is linear and has only a white prior. Stronger prior knowledge, such as smooth, non-negative or
vessel-like images, gives more detail, see `forecast`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.likelihood import SIGNAL_PER_IMAGE
from mpi_fast.limits import decibels

SNR_DB = 25.0
SNRS_DB = 15.0, SNR_DB, 35.0  # at which the limits of a calibration are shown
PART = 4096  # voxels processed at once, because a basis may fill the memory
BEST = 0.9  # this quantile over the voxels represents the grid; voxels at its rim may lie outside the scan


@dataclass(frozen=True)
class Resolution:
    """The diagonal of the resolution matrix at one SNR.

    Attributes
    ----------
    snr_db : float
        ``20 log10(||signal|| / ||noise||)`` over the whitened rows of a typical image, as `reconstruct` reports it.
    diagonal : (*grid) float64
        From 0 (not seen) to 1 (fully resolved).
    voxel_size : tuple of float
        In m, along the same axes.
    """

    snr_db: float
    diagonal: NDArray[np.float64]
    voxel_size: tuple[float, ...]

    @property
    def effective_rank(self) -> float:
        """Effective number of measured values: the trace of the resolution matrix."""
        return float(self.diagonal.sum())

    @cached_property
    def cell(self) -> float:
        """Side of a resolved cell in voxels, at the best place; 1 if every voxel is resolved."""
        return float(np.quantile(self.diagonal, BEST) ** (-1 / self.diagonal.ndim))

    @property
    def cell_size(self) -> tuple[float, ...]:
        """Side of a resolved cell in m, along each axis."""
        return tuple(self.cell * size for size in self.voxel_size)


def resolution(calibration: Calibration, snr_db: float = SNR_DB) -> Resolution:
    """The resolution of a calibration at an SNR; no frame is measured or simulated.

    Parameters
    ----------
    calibration : Calibration
        Calibration with M rows, rank R and N voxels.
    snr_db : float
        SNR of the frames, see `Resolution`.

    Raises
    ------
    InputError
        As `limits.decibels`.
    """
    squares = np.square(calibration.singular_values, dtype=np.float64)
    # sigma^2 / r^2: images of root-mean-square r have signals of ||S V^T x||^2 = (SIGNAL_PER_IMAGE r)^2 sum(S^2), and
    # noise has sigma^2 in each of 2M real numbers.
    signal = SIGNAL_PER_IMAGE**2 * squares.sum()
    noise = signal / (2 * calibration.num_rows) * 10 ** (-decibels(snr_db) / 10)
    share = (squares / (squares + noise)).astype(np.float32)
    starts = range(0, calibration.num_voxels, PART)
    parts = [np.square(calibration.basis[start : start + PART]) @ share for start in starts]
    diagonal = np.concatenate(parts).astype(np.float64).reshape(calibration.grid)
    sizes = zip(calibration.field_of_view, calibration.grid, strict=True)
    return Resolution(snr_db, diagonal, tuple(abs(length) / count for length, count in sizes))
