"""A calibration scan: spectra with a delta sample at every voxel, and without it, from a file or from arrays.

The measured values of candidate rows are read in blocks, because the matrix of a volume may be larger than memory and
only a few of its rows are used. `calibration.Calibration` turns them into the arrays that reduce frames.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.background import shows_noise, warn_of_outliers, without_outliers
from mpi_fast.checked import REAL, checked_array, checked_json
from mpi_fast.decomposition import Report, silent
from mpi_fast.errors import FileFormatError, InputError, MPIFastWarning
from mpi_fast.grids import misshapen, shown
from mpi_fast.mdf import Acquisition, SystemMatrixFile
from mpi_fast.preprocessing import RowFilter, background_weights, mixing_orders, row_snr

Complex = NDArray[np.complexfloating[Any, Any]]
IntArray = NDArray[np.int64]
IN_MEMORY = "system matrix"
BLOCK_BYTES = 256 << 20  # rows that are corrected at once, in double precision: all rows of most planes


@dataclass(frozen=True)
class CalibrationScan:
    """The measured data of a calibration.

    Attributes
    ----------
    candidates : (C, K) bool
        Rows in this scan: those that pass all criteria except SNR, or also SNR if ``snr`` was stored.
    foreground : callable
        Reads candidate rows by their numbers: (n, N) complex, voxels in MDF order (x fastest).
    background : (rows, B) complex, or None
        Background frames in the order of acquisition.
    subtracted : (B, N) sparse array, or None
        Weight with which each background frame is subtracted from each voxel.
    snr : (C, K), or None
        Signal-to-noise ratio of each row, if known.
    frequencies : (K,) float64
        In Hz.
    grid, field_of_view
        (ny, nx) or (nz, ny, nx), and the extent along these axes in m.
    source : str
        Name in messages.
    acquisition : Acquisition, or None
        Acquisition parameters, if known.
    transfer_function_corrected : bool
    facts : dict
        Facts to be shown to users.
    """

    candidates: NDArray[np.bool_]
    foreground: Callable[[IntArray], Complex]
    background: Complex | None
    subtracted: Any
    snr: NDArray[np.float64] | None
    frequencies: NDArray[np.float64]
    grid: tuple[int, ...]
    field_of_view: tuple[float, ...]
    source: str = IN_MEMORY
    acquisition: Acquisition | None = None
    transfer_function_corrected: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def open_mdf(
        cls, path: str | Path, rows: RowFilter, plane: tuple[str, int] | None = None
    ) -> Iterator["CalibrationScan"]:
        """Context manager for a plane or the volume of a file, with only the candidate rows.

        See `Calibration.from_mdf`.
        """
        with SystemMatrixFile(path) as file:
            grid, acquisition, stored = file.grid(plane), file.acquisition, file.frequency_index
            if (problem := misshapen(grid.shape, grid.field_of_view)) is not None:
                raise FileFormatError(f"{path}: {problem}")
            shape, limited = (acquisition.num_channels, acquisition.num_frequencies), rows.max_order is not None
            orders = mixing_orders(acquisition.drive_frequencies, acquisition.frequencies) if limited else None
            candidates = np.zeros(shape, dtype=bool)
            candidates[:, stored] = rows.candidates(acquisition.frequencies, shape[0], orders)[:, stored]
            snr = None if file.snr is None else _stored_snr(str(path), file.snr, shape, stored)
            chosen = candidates if snr is None else rows.select(candidates, snr)
            wanted = _stored_rows(chosen, stored)

            fits = wanted.size <= _rows_per_block(grid.shape)
            held = file.rows(grid, wanted) if fits else None  # read only once
            background = subtracted = None
            if len(file.background_index):
                background = file.background(wanted)
                weights = background_weights(file.foreground_index(grid), file.background_index)
                subtracted = 0.0 * weights if file.background_corrected else weights
            yield cls(
                candidates=chosen,
                foreground=lambda part: file.rows(grid, wanted[part]) if held is None else held[part],
                background=background,
                subtracted=subtracted,
                snr=snr,
                frequencies=acquisition.frequencies,
                grid=grid.shape,
                field_of_view=grid.field_of_view,
                source=str(path),
                acquisition=acquisition,
                transfer_function_corrected=file.transfer_function_corrected,
                facts={
                    "source": Path(path).name,
                    "plane": list(plane) if plane else None,
                    "normal": grid.normal,
                    "extent": list(grid.extent),
                    "center": list(grid.center),
                    "candidate_rows": int(candidates.sum()),
                    "snr_threshold": rows.snr_threshold,
                    "min_frequency": rows.min_frequency,
                    "max_frequency": rows.max_frequency if np.isfinite(rows.max_frequency) else None,
                    "channels": None if rows.channels is None else list(rows.channels),
                    "max_order": rows.max_order,
                    "max_rows": rows.max_rows,
                    "background_frames": len(file.background_index),
                },
            )

    @classmethod
    def from_arrays(
        cls,
        matrix: Complex,
        frequencies: NDArray[np.float64] | None,
        grid: tuple[int, ...],
        field_of_view: tuple[float, ...],
        rows: RowFilter,
        *,
        background: Complex | None = None,
        order: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
        snr: NDArray[np.float64] | None = None,
        mixing: NDArray[np.int64] | None = None,
        acquisition: Acquisition | None = None,
        facts: dict[str, Any] | None = None,
    ) -> "CalibrationScan":
        """A scan from arrays, see `Calibration.from_arrays`."""
        grid = tuple(map(int, checked_array("grid", grid, ("axes",), "iu")))
        field_of_view = tuple(map(float, checked_array("field of view", field_of_view, ("axes",), REAL)))
        matrix = checked_array("system matrix", matrix, ("channels", "frequencies", "voxels"))
        numbered = np.arange(matrix.shape[1], dtype=np.float64)
        frequencies = numbered if frequencies is None else frequencies
        frequencies = checked_array("frequencies", frequencies, ("frequencies",), REAL, finite=True)
        checked_json("facts", facts)
        if (problem := misshapen(grid, field_of_view)) is not None:
            raise InputError(problem)
        channels, count, voxels = matrix.shape
        if voxels != math.prod(grid) or len(frequencies) != count:
            raise InputError(
                f"system matrix {matrix.shape}: expected (channels, {len(frequencies)} frequencies, "
                f"{shown(grid)} voxels)"
            )
        stated = None if acquisition is None else (acquisition.num_channels, acquisition.num_frequencies)
        if stated not in (None, (channels, count)):
            raise InputError(f"acquisition of (channels, frequencies) {stated}, but the matrix has {(channels, count)}")
        if mixing is not None:
            mixing = checked_array("mixing orders", mixing, (count,), "iu")
        if snr is not None:
            snr = checked_array("SNR of the rows", snr, (channels, count), REAL)
        candidates = rows.candidates(frequencies, channels, mixing)
        channel, frequency = np.nonzero(candidates)
        empty = subtracted = None
        if background is not None:
            background = checked_array("background", background, (channels, count, "frames"))
        if background is not None and (frames := background.shape[2]):
            order = order or (np.arange(voxels), np.arange(voxels, voxels + frames))
            filled, blank = (
                checked_array("order", *one, "iu") for one in zip(order, ((voxels,), (frames,)), strict=True)
            )
            acquired = np.argsort(blank)
            empty = background[candidates][:, acquired]
            subtracted = background_weights(filled, blank[acquired])
        return cls(
            candidates=candidates,
            foreground=lambda part: matrix[channel[part], frequency[part]],
            background=empty,
            subtracted=subtracted,
            snr=snr,
            frequencies=np.asarray(frequencies, dtype=np.float64),
            grid=grid,
            field_of_view=field_of_view,
            acquisition=acquisition,
            facts=facts or {},
        )

    def cleaned(self) -> "CalibrationScan":
        """Replace outliers among the background frames; warn if these frames do not show the noise.

        Raises
        ------
        InputError
            For NaN or Inf, with channel and frequency of the first.
        """
        if self.background is None:
            return self
        self._check_finite(self.background, np.arange(len(self.background)), "background")
        background, replaced = without_outliers(self.background, np.nonzero(self.candidates)[0])
        warn_of_outliers(replaced, self.source)
        if not shows_noise(background):
            count = background.shape[1]
            few = "1 background frame" if count == 1 else f"{count} background frames that are all the same"
            warnings.warn(
                f"{self.source}: {few} cannot show the noise: it is unknown, and all rows count alike",
                MPIFastWarning,
                stacklevel=2,
            )
        return replace(self, background=background)

    def with_snr(self) -> "CalibrationScan":
        """Compute the SNR of the candidates, if it is unknown and background frames show the noise."""
        if self.snr is not None or self.background is None or not shows_noise(self.background):
            return self

        def measured(rows: IntArray) -> Complex:
            block = self._read(rows)
            # Voxels of exact zeros were not measured, because the scan was stopped before.
            return np.where(block == 0, 0, self._corrected(block, rows))

        snr = np.full(self.candidates.shape, -np.inf)
        snr[self.candidates] = row_snr(measured, self.background, self._parts(np.arange(self.candidates.sum())))
        return replace(self, snr=snr)

    def strength(self) -> NDArray[np.float64]:
        """Root mean square of each candidate over the voxels, (C, K); minus infinity for other rows."""
        found = [
            np.linalg.norm(self._corrected(self._read(part), part), axis=1)
            for part in self._parts(np.arange(self.candidates.sum()))
        ]
        out = np.full(self.candidates.shape, -np.inf)
        out[self.candidates] = np.concatenate(found) / math.sqrt(math.prod(self.grid))
        return out

    def matrix(self, rows: IntArray, report: Report = silent) -> NDArray[np.complex64]:
        """Read some candidates and subtract the background, block by block: (rows, N).

        Voxels that contain only zeros, because the scan was stopped before they were reached, stay zero, with a
        warning.

        Raises
        ------
        InputError
            For NaN or Inf, with channel and frequency of the first, and for numbers too large for single precision.
        """
        out = np.empty((len(rows), math.prod(self.grid)), np.complex64)
        reached, largest, done = np.zeros(out.shape[1], dtype=bool), 0.0, 0
        for part in self._parts(rows):
            report("rows", done / len(rows))
            block = self._read(part)
            reached |= block.any(axis=0)
            block = self._corrected(block, part)
            largest = max(largest, float(np.abs(block).max()))
            with np.errstate(over="ignore"):  # reported below
                out[done : done + len(part)] = block
            done += len(part)
        report("rows", 1.0)
        if not reached.all():
            out[:, ~reached] = 0
            self._warn_of_unreached(~reached)
        single = np.finfo(np.float32)
        if largest > single.max**0.5 or 0 < largest < 1e3 * single.tiny:
            size = "large" if largest > 1 else "small"
            raise InputError(f"{self.source}: values up to {largest:.3g}: too {size} for single precision")
        return out

    def _parts(self, rows: IntArray) -> list[IntArray]:
        """The rows in parts that fit a block."""
        step = _rows_per_block(self.grid)
        return [rows[start : start + step] for start in range(0, len(rows), step)]

    def _read(self, rows: IntArray) -> Complex:
        block = self.foreground(rows)
        self._check_finite(block, rows, "foreground")
        return block

    def _corrected(self, block: Complex, rows: IntArray) -> Complex:
        """Rows (n, N) less their background."""
        if self.background is None:
            return block
        background = self.background[rows]
        return np.asarray(block - background @ self.subtracted.astype(background.real.dtype))

    def _check_finite(self, values: Complex, rows: IntArray, kind: str) -> None:
        broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if broken.size:
            channel, frequency = (int(index[rows[broken[0]]]) for index in np.nonzero(self.candidates))
            raise InputError(
                f"{self.source}: NaN or Inf in {broken.size} rows of the {kind} frames, the first in channel {channel} "
                f"at {self.frequencies[frequency] / 1e3:.6g} kHz"
            )

    def _warn_of_unreached(self, unreached: NDArray[np.bool_]) -> None:
        if not unreached.all():  # all zeros are an invalid matrix, which is reported elsewhere
            count, first = int(unreached.sum()), int(unreached.argmax())
            warnings.warn(
                f"{self.source}: {count} of {len(unreached)} voxels hold nothing but zeros, the first is number "
                f"{first} (from 0): was the calibration scan stopped? Nothing can be seen there",
                MPIFastWarning,
                stacklevel=4,
            )


def _stored_snr(
    source: str, stored: NDArray[np.float64], shape: tuple[int, int], index: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """The SNR (C, K') that a file stores, at all frequencies; None if no value is above zero.

    An infinite value means a row of unknown noise; it is replaced by the best known SNR, so that the row is kept.
    """
    known = np.isfinite(stored) & (stored > 0)
    endless = int(np.isposinf(stored).sum())
    if endless:
        warnings.warn(
            f"{source}: /calibration/snr is infinite in {endless} of {stored.size} rows: their noise is unknown",
            MPIFastWarning,
            stacklevel=4,
        )
    if not known.any():
        return None
    snr = np.full(shape, -np.inf)
    snr[:, index] = np.nan_to_num(stored, nan=-np.inf, posinf=float(stored[known].max()), neginf=-np.inf)
    return snr


def _rows_per_block(grid: tuple[int, ...]) -> int:
    """Number of rows that are read and corrected at once."""
    return max(1, BLOCK_BYTES // (np.dtype(np.complex128).itemsize * math.prod(grid)))


def _stored_rows(chosen: NDArray[np.bool_], index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number among the stored rows, channel by channel, of each chosen row (C, K), in the order of the latter."""
    position = np.full(chosen.shape[1], -1)
    position[index] = np.arange(len(index))
    channel, frequency = np.nonzero(chosen)
    return np.asarray(channel * len(index) + position[frequency], np.int64)
