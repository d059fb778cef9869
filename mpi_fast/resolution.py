"""What a calibration resolves, before any frame was measured: the resolution matrix of its linear estimate.

Signals ``y = S V^T x + sigma xi`` and a white prior of deviation r have the posterior mean ``V diag(f) V^T x`` plus
noise, with ``f = S^2 / (S^2 + sigma^2 / r^2)`` (see `likelihood`). That product is the resolution matrix (Backus and
Gilbert; Menke, "Geophysical Data Analysis", chapter 4): column i is what becomes of a point at voxel i. Its diagonal
says which share of a voxel's own value comes back in it, from 0 where nothing is seen to 1 where the voxel is resolved
for itself. A point that d voxels share comes back with 1/d, so one over the diagonal is the size of a resolved cell in
voxels. Its trace, the sum of f, is how many numbers are measured in effect.

What it says is linear and knows no prior but white noise: an image that is known to be smooth, non-negative or made of
vessels is found in more detail, see `forecast`.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.likelihood import SIGNAL_PER_IMAGE

SNR_DB = 25.0
PART = 4096  # voxels at once: a basis may be as large as memory
BEST = 0.9  # quantile of the voxels whose resolution stands for the grid: those at its rim may lie outside the scan


@dataclass(frozen=True)
class Resolution:
    """The diagonal of the resolution matrix at one SNR.

    Attributes
    ----------
    snr_db : float
        ``20 log10(||signal|| / ||noise||)`` over the whitened rows, of a typical image; as `reconstruct` reports it.
    diagonal : (*grid) float64
        From 0, not seen, to 1, resolved voxel by voxel.
    voxel_size : tuple of float
        In m, along the same axes.
    """

    snr_db: float
    diagonal: NDArray[np.float64]
    voxel_size: tuple[float, ...]

    @property
    def effective_rank(self) -> float:
        """How many numbers are measured in effect: the trace of the resolution matrix."""
        return float(self.diagonal.sum())

    @cached_property
    def cell(self) -> float:
        """Side of a resolved cell in voxels where the scanner sees best: 1 where every voxel is resolved."""
        return float(np.quantile(self.diagonal, BEST) ** (-1 / self.diagonal.ndim))

    @property
    def cell_size(self) -> tuple[float, ...]:
        """The same in m, along each axis."""
        return tuple(self.cell * size for size in self.voxel_size)


def resolution(calibration: Calibration, snr_db: float = SNR_DB) -> Resolution:
    """What a calibration resolves at an SNR; no frame is needed, and none simulated.

    Parameters
    ----------
    calibration : Calibration
        Of M rows, rank R and N voxels.
    snr_db : float
        Of the frames in question, see `Resolution`.

    Raises
    ------
    InputError
        For an SNR that is no number.
    """
    if not np.isfinite(snr_db):
        raise InputError(f"SNR {snr_db} dB: expected a number")
    squares = np.square(calibration.singular_values, dtype=np.float64)
    # sigma^2 / r^2: images of root-mean-square r have signals of ||S V^T x||^2 = (SIGNAL_PER_IMAGE r)^2 sum(S^2), and
    # noise has sigma^2 in each of 2M real numbers.
    signal = SIGNAL_PER_IMAGE**2 * squares.sum()
    noise = signal / (2 * calibration.num_rows) * 10 ** (-snr_db / 10)
    share = (squares / (squares + noise)).astype(np.float32)
    starts = range(0, calibration.num_voxels, PART)
    parts = [np.square(calibration.basis[start : start + PART]) @ share for start in starts]
    diagonal = np.concatenate(parts).astype(np.float64).reshape(calibration.grid)
    sizes = zip(calibration.field_of_view, calibration.grid, strict=True)
    return Resolution(snr_db, diagonal, tuple(abs(length) / count for length, count in sizes))
