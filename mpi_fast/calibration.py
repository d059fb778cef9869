"""Calibration: a system matrix, reduced once to the arrays that every frame needs.

The selected rows of ``b = A x + noise`` are divided by their noise standard deviation and stacked, real over imaginary
part. Then ``A_r = U S V^T`` is computed once, in float64. For each frame ``y = U^T b_r`` (R real numbers) is a
sufficient statistic for x, and the part of b outside the range of A is noise alone:

    sigma^2 = ||b_r - U y||^2 / (2M - R)

So the network does not depend on M, on complex numbers, or on any parameter of the user.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration_file import is_calibration, read_calibration, write_calibration
from mpi_fast.checked import checked_array
from mpi_fast.decomposition import Report, silent
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.limits import LOWEST_FREQUENCY
from mpi_fast.mdf import Acquisition
from mpi_fast.preprocessing import RowFilter, best_rows
from mpi_fast.reduction import (
    RESIDUAL_FREEDOM,
    SNR_CEILING_DB,
    ReducedFrames,
    projection_of,
    reduce_matrix,
    row_weights,
)
from mpi_fast.scan import CalibrationScan

Complex = NDArray[np.complexfloating[Any, Any]]


@dataclass(frozen=True)
class Calibration:
    """A system matrix after row selection, whitening and reduction.

    Build one with `from_mdf`, or with `from_arrays` from a matrix in memory.

    Attributes
    ----------
    grid : (ny, nx) or (nz, ny, nx)
        Number of voxels of a plane or a volume.
    field_of_view : tuple of float
        Extent of the grid in m, along the same axes.
    selection : (C, K) bool
        The rows in use. ``M = selection.sum()``.
    frequencies : (K,) float64
        In Hz.
    matrix : (M, N) complex64
        Selected rows, background-corrected, in the measurement's unit per concentration unit.
    weights : (M,) float64
        Inverse of the noise standard deviation of each row (of its real or imaginary part).
    singular_values, basis : (R,), (N, R) float32
        S and V of the reduction.
    projection : (R, M) complex128
        ``y = Re(projection @ b)``: whitening and U^T in one. Single precision would make images depend on the batch.
    acquisition : Acquisition, or None
        Acquisition parameters, as far as they are known; `pairing` compares measurements with them.
    transfer_function_corrected : bool
        Whether the matrix was divided by the transfer function.
    noise_known : bool
        Whether the noise of the rows was measured by background frames; otherwise all rows have the same weight.
    facts : dict
        Origin, to be shown to users: file, thresholds.
    """

    grid: tuple[int, ...]
    field_of_view: tuple[float, ...]
    selection: NDArray[np.bool_]
    frequencies: NDArray[np.float64]
    matrix: NDArray[np.complex64]
    weights: NDArray[np.float64]
    singular_values: NDArray[np.float32]
    basis: NDArray[np.float32]
    projection: NDArray[np.complex128]
    acquisition: Acquisition | None = None
    transfer_function_corrected: bool = False
    noise_known: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def _repr_html_(self) -> str:
        from mpi_fast import notebook  # a display, which no computation needs

        return notebook.of_calibration(self)

    @property
    def num_rows(self) -> int:
        """M: number of selected rows."""
        return len(self.matrix)

    @property
    def rank(self) -> int:
        """R: number of values to which a frame is reduced."""
        return len(self.singular_values)

    @property
    def num_samples(self) -> int:
        """V: samples per period; if unknown, the even number that gives K frequencies."""
        if self.acquisition is not None:
            return self.acquisition.num_samples
        return int(self.facts.get("num_samples", 2 * (self.selection.shape[1] - 1)))

    @property
    def num_voxels(self) -> int:
        """N: number of voxels of the grid."""
        return math.prod(self.grid)

    @classmethod
    def from_arrays(
        cls,
        matrix: Complex,
        frequencies: NDArray[np.float64] | None,
        grid: tuple[int, ...],
        field_of_view: tuple[float, ...],
        *,
        background: Complex | None = None,
        order: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
        snr: NDArray[np.float64] | None = None,
        mixing: NDArray[np.int64] | None = None,
        rows: RowFilter = RowFilter(),  # noqa: B008 (frozen)
        report: Report = silent,
        acquisition: Acquisition | None = None,
        facts: dict[str, Any] | None = None,
    ) -> "Calibration":
        """Calibrate from arrays in memory.

        Parameters
        ----------
        matrix : (C, K, N) complex
            Spectra of the delta sample at each voxel, voxels in MDF order (x fastest).
        frequencies : (K,) or None
            In Hz; None if unknown: they are then numbered from 0, and ``rows`` does not select by frequency.
        grid, field_of_view
            (ny, nx) or (nz, ny, nx), and the extent along these axes in m.
        background : (C, K, B) complex, optional
            Spectra without the sample. They are subtracted, and the noise of each row is estimated from them. Without
            them all rows have the same weight, and the matrix is assumed to be free of noise.
        order : ((N,), (B,)) int, optional
            Order of acquisition of the frames; by default all background frames follow all others.
        snr : (C, K), optional
            Signal-to-noise ratio of each row; by default it is computed from the background.
        mixing : (K,) int, optional
            Mixing order of each frequency, for ``rows.max_order``.
        rows : RowFilter
            Selection of the rows.
        report : callable
            Called with the progress; see `decomposition.Report`.
        acquisition : Acquisition, optional
            Acquisition parameters, with which measurements are compared.
        facts : dict, optional
            Stored unchanged.

        Raises
        ------
        InputError
            For shapes and types that do not fit, for NaN or Inf, and if no row is left.
        """
        if frequencies is None:
            rows, facts = rows.of_any_frequency(), {"frequencies": "unknown", **(facts or {})}
        scan = CalibrationScan.from_arrays(
            matrix,
            frequencies,
            grid,
            field_of_view,
            rows,
            background=background,
            order=order,
            snr=snr,
            mixing=mixing,
            acquisition=acquisition,
            facts=facts,
        )
        return cls.from_scan(scan, rows, report)

    @classmethod
    def from_mdf(
        cls,
        path: str | Path,
        *,
        plane: tuple[str, int] | None = None,
        snr_threshold: float = 5.0,
        min_frequency: float = LOWEST_FREQUENCY,
        max_frequency: float = np.inf,
        channels: Sequence[int] | None = None,
        max_order: int | None = None,
        max_rows: int | None = None,
        report: Report = silent,
    ) -> "Calibration":
        """Calibrate from an MDF system matrix; only the required voxels and rows of a large file are read.

        Parameters
        ----------
        path : str or Path
            MDF v2 file.
        plane : (axis, index), optional
            Plane of a 3D grid, such as ``("z", 9)``, counted from 0; by default the whole volume is used.
        snr_threshold, min_frequency, max_frequency, channels, max_order, max_rows
            See `preprocessing.RowFilter`. An SNR stored in the file is used.
        report : callable
            Called with the progress; see `decomposition.Report`.

        Raises
        ------
        FileFormatError, MismatchError, InputError
            For a file that is not a system matrix, for a plane that it does not contain, and as `from_arrays`.
        """
        rows = RowFilter(snr_threshold, min_frequency, max_frequency, channels, max_order, max_rows)
        with CalibrationScan.open_mdf(path, rows, plane) as scan:
            return cls.from_scan(scan, rows, report)

    @classmethod
    def from_scan(cls, scan: CalibrationScan, rows: RowFilter, report: Report = silent) -> "Calibration":
        """Subtract the background of candidate rows, select by SNR, whiten, reduce; raises as `from_arrays`."""
        if not scan.candidates.any():
            rows.select(scan.candidates, None)
        scan = scan.cleaned().with_snr()
        selection, limit = rows.select(scan.candidates, scan.snr), rows.limit(scan.grid)
        enough = int(selection.sum())
        if enough > limit:
            selection = best_rows(selection, scan.strength() if scan.snr is None else scan.snr, int(limit))
        chosen = np.flatnonzero(selection[scan.candidates])
        if 2 * len(chosen) <= RESIDUAL_FREEDOM:
            raise InputError(
                f"only {len(chosen)} rows selected, expected over {RESIDUAL_FREEDOM // 2}: lower a threshold"
            )
        matrix = scan.matrix(chosen, report)
        weights, noise_known = row_weights(matrix, None if scan.background is None else scan.background[chosen])
        u, s, v = reduce_matrix(matrix, scan.subtracted if noise_known else None, weights=weights, report=report)
        return cls(
            grid=scan.grid,
            field_of_view=scan.field_of_view,
            selection=selection,
            frequencies=scan.frequencies,
            matrix=matrix,
            weights=weights,
            singular_values=s.astype(np.float32),
            basis=np.ascontiguousarray(v, dtype=np.float32),
            projection=projection_of(u, weights),
            acquisition=scan.acquisition,
            transfer_function_corrected=scan.transfer_function_corrected,
            noise_known=noise_known,
            facts={
                "candidate_rows": int(scan.candidates.sum()),
                "enough_snr_rows": enough,
                "best_snr": None if scan.snr is None else float(scan.snr[scan.candidates].max()),
                **scan.facts,
            },
        )

    def rows(self, signals: NDArray[Any]) -> NDArray[np.complex64]:
        """Select the rows of frames as `select` does, (F, M) complex64, and require them to be finite.

        Raises
        ------
        InputError
            For NaN or Inf, and as `select`.
        MismatchError
            As `select`.
        """
        rows = self.select(signals)
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if broken.size:
            raise InputError(
                f"signals: NaN or Inf in {broken.size} of {len(rows)} frames, the first is frame {broken[0]}"
            )
        return rows

    def select(self, signals: NDArray[Any]) -> NDArray[np.complex64]:
        """Select the rows of frames, finite or not.

        Parameters
        ----------
        signals : (F, C, V) real in V, (F, C, K) complex spectra (plain rfft), or (F, M) complex selected rows
            Background-corrected.

        Returns
        -------
        (F, M) complex64

        Raises
        ------
        InputError
            For another type or number of axes.
        MismatchError
            For channels, samples or frequencies other than the calibration's.
        """
        signals = checked_array("signals", signals, kinds=None)
        self.require_shape(signals)
        if signals.dtype.kind != "c":
            with np.errstate(invalid="ignore", over="ignore"):
                signals = np.fft.rfft(signals, axis=-1)
        if signals.ndim == 3:
            signals = signals[:, self.selection]
        with np.errstate(over="ignore"):  # numbers beyond single precision become infinite, and so not finite
            return signals.astype(np.complex64)

    def require_shape(self, signals: Any) -> None:
        """Check type and shape of signals, those of an array of NumPy or of a GPU; raises as `select`."""
        channels, frequencies = self.selection.shape
        kind = "complex" if signals.dtype.kind == "c" else "real" if signals.dtype.kind in "fiu" else "other"
        if (kind, signals.ndim) not in (("real", 3), ("complex", 3), ("complex", 2)):
            raise InputError(
                f"signals {signals.dtype} {signals.shape}: expected real (frames, {channels}, samples), complex "
                f"(frames, {channels}, {frequencies}) or complex (frames, {self.num_rows})"
            )
        # An odd number of samples gives as many frequencies as the even number below it.
        if kind == "real" and signals.shape[2] != self.num_samples:
            raise MismatchError(
                f"signals of {signals.shape[2]} samples: the calibration has {self.num_samples} per period"
            )
        length = self.num_samples if kind == "real" else frequencies
        if signals.ndim == 3 and signals.shape[1:] != (channels, length):
            raise MismatchError(
                f"signals {signals.shape}: the calibration has {channels} channels and {frequencies} frequencies"
            )
        if signals.ndim == 2 and signals.shape[1] != self.num_rows:
            raise MismatchError(f"signals {signals.shape}: the calibration has {self.num_rows} selected rows")

    def reduce(self, rows: NDArray[np.complex64]) -> ReducedFrames:
        """Reduce frames (F, M) complex, as `rows` returns them, to R numbers each, noise level and SNR."""
        y = (rows @ self.projection.T).real
        whitened = rows * self.weights  # complex128: the residual is a small difference of large energies
        energy = (np.square(whitened.real) + np.square(whitened.imag)).sum(axis=1)
        total, outside = 2 * self.num_rows, 2 * self.num_rows - self.rank
        variance = (energy - np.square(y, dtype=np.float64).sum(axis=1)) / outside
        variance = np.maximum(variance, energy / total * 10 ** (-SNR_CEILING_DB / 10))
        signal = np.maximum(energy - total * variance, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            snr_db = np.where(energy > 0, 10 * np.log10(signal / (total * variance)), -np.inf)
        return ReducedFrames(
            np.ascontiguousarray(y, dtype=np.float32), np.sqrt(variance).astype(np.float32), snr_db.astype(np.float32)
        )

    def save(self, path: str | Path) -> None:
        """Write one HDF5 file with a SHA-256 checksum; it appears under its name only when it is complete."""
        write_calibration(path, vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read a file that `save` wrote; see `read_calibration` for the checks and the errors raised."""
        return cls(**read_calibration(path))

    @classmethod
    def open(cls, path: str | Path, **options: Any) -> "Calibration":
        """Load a saved calibration (options raise InputError), or calibrate from MDF, see `from_mdf`."""
        if not is_calibration(path):
            return cls.from_mdf(path, **options)
        if any(value is not None for value in options.values()):
            raise InputError(f"{path}: is calibrated already; plane, thresholds and channels were chosen then")
        return cls.load(path)
