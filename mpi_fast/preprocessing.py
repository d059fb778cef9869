"""Preprocessing of a measured system matrix: background correction, SNR of rows, selection of rows.

Arrays are (rows, frames): a row is one frequency component of one receive channel, a foreground frame is the delta
sample at one voxel, a background frame is taken without it. The conventions are those of MPIFiles.jl.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.limits import LOWEST_FREQUENCY

if TYPE_CHECKING:
    from scipy.sparse import csr_array

Complex = NDArray[np.complexfloating]
STRONG_ROWS = 20  # number of rows that determine the strong voxels
STRONG_VOXEL = 0.9  # threshold relative to the row's maximum
ROWS_OF_VOLUMES = 6000  # default maximum: a Gram matrix of 1.2 GB, some minutes
LARGEST_ORDER = 64  # largest mixing order that is computed


def background_blocks(order: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    """Positions of background frames, grouped into runs that were acquired one after the other.

    Parameters
    ----------
    order : (B,) int
        Index of each background frame in the order of acquisition, counted over all frames.
    """
    positions = np.argsort(order, kind="stable")
    breaks = np.flatnonzero(np.diff(order[positions]) > 1) + 1
    return list(np.split(positions, breaks))


def background_weights(foreground_order: NDArray[np.integer], background_order: NDArray[np.integer]) -> "csr_array":
    """Weights with which background frames are subtracted from foreground frames, (B, N) float64, mostly zeros.

    The mean of each contiguous block of background frames belongs to the middle of the block. Between blocks it is
    interpolated linearly in the order of acquisition; before the first and after the last block it is constant.

    Parameters
    ----------
    foreground_order, background_order : (N,), (B,) int
        Position of each frame in the order of acquisition; B >= 1.
    """
    from scipy.sparse import csr_array  # this import takes a quarter of a second, and only calibrations need it

    blocks = background_blocks(background_order)
    middles = np.array([background_order[block].mean() for block in blocks])
    number = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
    share = 1.0 / np.bincount(number)[number]
    means = csr_array((share, (np.concatenate(blocks), number)), shape=(len(background_order), len(blocks)))
    place = np.interp(foreground_order, middles, np.arange(len(blocks)))
    before = np.minimum(place.astype(np.int64), max(len(blocks) - 2, 0))
    after, frames = np.minimum(before + 1, len(blocks) - 1), np.arange(len(foreground_order))
    shares = np.concatenate([1 - (place - before), place - before])
    where = np.concatenate([before, after]), np.concatenate([frames, frames])
    return means @ csr_array((shares, where), shape=(len(blocks), len(frames)))


def row_noise(background: Complex) -> NDArray[np.float64]:
    """Noise standard deviation of the real (or imaginary) part of each row, (rows,).

    It is estimated from differences of consecutive background frames, (rows, B) in the order of acquisition, B >= 2. So
    drift does not count as noise, and blocks may be as short as one frame, as in OpenMPI's calibrations.
    """
    difference = np.diff(background, axis=1)
    return np.asarray(np.sqrt(np.square(np.abs(difference), dtype=np.float64).mean(axis=1) / 4))


def floor_deviations(deviation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Limit noise deviations (rows,), not all zero, to at least a tenth of their median.

    A few frames may be equal by chance, and a row without noise would dominate all others.
    """
    return np.maximum(deviation, 0.1 * np.median(deviation[deviation > 0]))


def row_snr(
    foreground: Callable[[NDArray[np.int64]], Complex], background: Complex, parts: Sequence[NDArray[np.int64]]
) -> NDArray[np.float64]:
    """Signal-to-noise ratio of each row, if the file does not contain it.

    This is the median magnitude over the strong voxels, divided by the mean magnitude of the background after
    subtraction of its mean. A voxel is strong if it reaches 90 % of the maximum in one of the 20 rows of highest raw
    SNR. Without strong voxels, the peak is used.

    Parameters
    ----------
    foreground : callable
        Returns some rows, (rows, N) complex, background-corrected.
    background : (rows, B) complex
        Background frames, which must show some noise: not all the same.
    parts : sequence of (n,) int
        All rows, in parts that fit into memory.
    """
    noise = np.abs(background - background.mean(axis=1, keepdims=True)).mean(axis=1).astype(np.float64)
    noise = floor_deviations(noise)
    peak = np.concatenate([np.abs(foreground(part)).max(axis=1) for part in parts])
    best = np.argsort(peak / noise)[::-1][:STRONG_ROWS]
    strong = (np.abs(foreground(best)) >= STRONG_VOXEL * peak[best, None]).any(axis=0)
    if not strong.any():
        return np.asarray(peak / noise, dtype=np.float64)
    signal = np.concatenate([np.median(np.abs(foreground(part)[:, strong]), axis=1) for part in parts])
    return np.asarray(signal / noise, dtype=np.float64)


def mixing_orders(drive_frequencies: Sequence[float], frequencies: NDArray[np.float64]) -> NDArray[np.int64]:
    """Mixing order of every frequency of a Lissajous acquisition.

    A component sits at ``|sum_d m_d f_d|``; its order is the least ``sum |m_d|`` that reaches it (Rahmer et al. 2009).
    Components that need more than `LARGEST_ORDER` get `LARGEST_ORDER` + 1.

    Parameters
    ----------
    drive_frequencies : sequence of float
        Frequencies of the drive channels in use, in Hz.
    frequencies : (K,)
        Frequencies of the spectrum in Hz, ascending from zero in equal steps.
    """
    steps = [round(frequency / frequencies[1]) for frequency in drive_frequencies]
    reach = {0: 0}
    for step in steps:
        following: dict[int, int] = {}
        for base, order in reach.items():
            for m in range(order - LARGEST_ORDER, LARGEST_ORDER - order + 1):
                total = base + m * step
                following[total] = min(order + abs(m), following.get(total, LARGEST_ORDER + 1))
        reach = following
    orders = np.full(len(frequencies), LARGEST_ORDER + 1, dtype=np.int64)
    for total, order in reach.items():
        if abs(total) < len(orders):
            orders[abs(total)] = min(order, orders[abs(total)])
    return orders


@dataclass(frozen=True)
class RowFilter:
    """Selection of the frequency components for reconstruction.

    Attributes
    ----------
    snr_threshold : float
        Smallest signal-to-noise ratio of selected rows.
    min_frequency, max_frequency : float
        Limits in Hz. Below 80 kHz the feed-through of the drive field dominates.
    channels : sequence of int, optional
        Receive channels to use, counted from 0; by default all.
    max_order : int, optional
        Highest mixing order to use.
    max_rows : int, optional
        Largest number of rows; those of best SNR are used. By default 6000 for volumes, because it determines the cost
        of the reduction, and unlimited for planes.

    Raises
    ------
    InputError
        If ``max_order`` or ``max_rows`` is less than one.
    """

    snr_threshold: float = 5.0
    min_frequency: float = LOWEST_FREQUENCY
    max_frequency: float = np.inf
    channels: Sequence[int] | None = None
    max_order: int | None = None
    max_rows: int | None = None

    def __post_init__(self) -> None:
        for name, limit in (("max_order", self.max_order), ("max_rows", self.max_rows)):
            if limit is not None and limit < 1:
                raise InputError(f"{name} {limit}: expected 1 or more")

    def of_any_frequency(self) -> "RowFilter":
        """The same filter without limits of frequency, for rows of unknown frequency."""
        return replace(self, min_frequency=0.0, max_frequency=np.inf)

    def candidates(
        self, frequencies: NDArray[np.float64], num_channels: int, orders: NDArray[np.int64] | None = None
    ) -> NDArray[np.bool_]:
        """Rows that pass all criteria except SNR, (C, K) bool, for frequencies (K,) in Hz and their mixing orders.

        Raises
        ------
        InputError
            For channels that do not exist, and for ``max_order`` if the orders are unknown.
        """
        wanted = list(range(num_channels) if self.channels is None else self.channels)
        if not wanted or any(not 0 <= channel < num_channels for channel in wanted):
            raise InputError(f"channels {wanted}: expected numbers from 0 to {num_channels - 1}")
        band = (frequencies >= self.min_frequency) & (frequencies <= self.max_frequency)
        if self.max_order is not None:
            if orders is None:
                raise InputError("max_order given, but the drive frequencies of this calibration are unknown")
            band &= orders <= self.max_order
        mask = np.zeros((num_channels, len(frequencies)), dtype=bool)
        mask[wanted] = band
        return mask

    def select(self, candidates: NDArray[np.bool_], snr: NDArray[np.float64] | None) -> NDArray[np.bool_]:
        """Candidates of enough SNR, (C, K) bool; without an SNR (C, K) all of them.

        Raises
        ------
        InputError
            If no row is left.
        """
        chosen = candidates if snr is None else candidates & (snr >= self.snr_threshold)
        if not chosen.any():
            best = (
                f"; the best of them has SNR {snr[candidates].max():.3g}"
                if snr is not None and candidates.any()
                else ""
            )
            raise InputError(
                f"no row left of {candidates.sum()} from {self.min_frequency / 1e3:g} to "
                f"{self.max_frequency / 1e3:g} kHz with SNR >= {self.snr_threshold:g}{best}: lower a threshold"
            )
        return chosen

    def limit(self, grid: tuple[int, ...]) -> float:
        """Largest number of rows for a calibration on this grid."""
        if self.max_rows is not None:
            return self.max_rows
        return ROWS_OF_VOLUMES if len(grid) == 3 else np.inf


def best_rows(chosen: NDArray[np.bool_], merit: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Those ``count`` of the chosen rows (C, K) bool that have the highest merit (C, K)."""
    order = np.argsort(-np.where(chosen, merit, -np.inf), axis=None, kind="stable")[:count]
    best = np.zeros_like(chosen)
    best.flat[order] = True
    return best & chosen
