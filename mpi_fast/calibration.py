"""Calibration: a system matrix, reduced once to what every frame needs.

The selected rows of ``b = A x + noise`` are divided by their noise standard deviation and stacked, real over imaginary
part; then ``A_r = U S V^T`` once, in float64. Per frame ``y = U^T b_r`` (R real numbers) is a
sufficient statistic for x, and what of b lies outside the range of A is noise alone:

    sigma^2 = ||b_r - U y||^2 / (2M - R)

so neither M nor complex numbers nor any user's parameter reach the sampler.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration_file import is_calibration, read_calibration, write_calibration
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.mdf import Acquisition, SystemMatrixFile
from mpi_fast.preprocessing import RowFilter, background_weights, mixing_orders, row_snr
from mpi_fast.reduction import RESIDUAL_FREEDOM, reduce_matrix, row_weights

Complex = NDArray[np.complexfloating[Any, Any]]
SNR_CEILING_DB = 50.0  # no frame is believed to be cleaner: model errors and float32 are noise, too


@dataclass(frozen=True)
class ReducedFrames:
    """Frames after `Calibration.reduce`, in units of whitened signal.

    Attributes
    ----------
    y : (F, R) float32
        Reduced signals.
    noise : (F,) float32
        Noise standard deviation of each component of y.
    snr_db : (F,) float32
        ``20 log10(||signal|| / ||noise||)`` over the whitened rows, as estimated; at most `SNR_CEILING_DB`, and minus
        infinity where the noise explains everything.
    """

    y: NDArray[np.float32]
    noise: NDArray[np.float32]
    snr_db: NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """A system matrix, selected, whitened and reduced.

    Build one with `from_mdf`, or with `from_arrays` from a matrix in memory.

    Attributes
    ----------
    grid : (ny, nx)
        Number of voxels.
    field_of_view : (height, width)
        Of the grid, in m.
    selection : (C, K) bool
        The rows in use. ``M = selection.sum()``.
    frequencies : (K,) float64
        In Hz.
    matrix : (M, N) complex64
        Selected rows, background-corrected, in the measurement's unit per concentration unit.
    weights : (M,) float64
        One over the noise standard deviation of each row (of its real or imaginary part).
    singular_values, basis : (R,), (N, R) float32
        S and V of the reduction.
    projection : (R, M) complex128
        ``y = Re(projection @ b)``: whitening and U^T in one. In single precision it would show how BLAS splits a batch.
    facts : dict
        Where it came from, for people: file, thresholds, tracer.
    """

    grid: tuple[int, int]
    field_of_view: tuple[float, float]
    selection: NDArray[np.bool_]
    frequencies: NDArray[np.float64]
    matrix: NDArray[np.complex64]
    weights: NDArray[np.float64]
    singular_values: NDArray[np.float32]
    basis: NDArray[np.float32]
    projection: NDArray[np.complex128]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def num_rows(self) -> int:
        """M: selected rows."""
        return len(self.matrix)

    @property
    def rank(self) -> int:
        """R: numbers that a frame is reduced to."""
        return len(self.singular_values)

    @property
    def num_voxels(self) -> int:
        """N: voxels of the grid."""
        return self.grid[0] * self.grid[1]

    @classmethod
    def from_arrays(
        cls,
        matrix: Complex,
        frequencies: NDArray[np.float64] | None,
        grid: tuple[int, int],
        field_of_view: tuple[float, float],
        *,
        background: Complex | None = None,
        order: tuple[NDArray[np.integer], NDArray[np.integer]] | None = None,
        snr: NDArray[np.float64] | None = None,
        mixing: NDArray[np.int64] | None = None,
        rows: RowFilter = RowFilter(),  # noqa: B008 (frozen)
        facts: dict[str, Any] | None = None,
    ) -> "Calibration":
        """Calibrate from arrays in memory.

        Parameters
        ----------
        matrix : (C, K, N) complex
            Spectra of the delta sample at each voxel, voxels in MDF order (x fastest).
        frequencies : (K,) or None
            In Hz; None where nobody knows them: they are numbered from 0 then, and ``rows`` does not select by them.
        grid, field_of_view
            (ny, nx), and (height, width) in m.
        background : (C, K, B) complex, optional
            Spectra without the sample: subtracted, and the noise of each row is taken from them. Without it all rows
            count alike and the matrix is taken to be free of noise.
        order : ((N,), (B,)) int, optional
            When each frame was acquired; default: all background frames after all others.
        snr : (C, K), optional
            Signal-to-noise ratio of each row; computed from the background where missing.
        mixing : (K,) int, optional
            Mixing order of each frequency, for ``rows.max_order``.
        rows : RowFilter
            Which rows to use.
        facts : dict, optional
            Kept as they are.

        Raises
        ------
        InputError
            For shapes that do not fit, NaN or Inf, and when no row is left.
        """
        channels, count, voxels = matrix.shape
        if frequencies is None:
            frequencies, rows = np.arange(count, dtype=np.float64), rows.of_any_frequency()
            facts = {"frequencies": "unknown", **(facts or {})}
        if voxels != grid[0] * grid[1] or len(frequencies) != count:
            raise InputError(
                f"system matrix {matrix.shape}: expected (channels, {len(frequencies)} frequencies, "
                f"{grid[0]} x {grid[1]} voxels)"
            )
        candidates = rows.candidates(frequencies, channels, mixing)
        foreground, empty, subtracted = matrix[candidates], None, None
        if background is not None:
            order = order or (np.arange(voxels), np.arange(voxels, voxels + background.shape[2]))
            acquired = np.argsort(order[1])
            empty = background[candidates][:, acquired]
            subtracted = background_weights(order[0], order[1][acquired])
        return cls._reduce(
            foreground, empty, subtracted, candidates, snr, rows, frequencies, grid, field_of_view, facts or {}
        )

    @classmethod
    def from_mdf(
        cls,
        path: str | Path,
        *,
        plane: tuple[str, int] | None = None,
        snr_threshold: float = 5.0,
        min_frequency: float = 80e3,
        max_frequency: float = np.inf,
        channels: Sequence[int] | None = None,
        max_order: int | None = None,
    ) -> "Calibration":
        """Calibrate from an MDF system matrix; of a large file only the plane and the rows in question are read.

        Parameters
        ----------
        path : str or Path
            MDF v2 file.
        plane : (axis, index), optional
            Plane of a 3D grid, such as ``("z", 9)``, counted from 0. Not needed where the grid is flat.
        snr_threshold, min_frequency, max_frequency, channels, max_order
            See `preprocessing.RowFilter`. The SNR stored in the file is used where there is one.

        Raises
        ------
        FileFormatError, MismatchError, InputError
            For a file that is not a system matrix, a 3D grid without ``plane``, and as `from_arrays`.
        """
        rows = RowFilter(snr_threshold, min_frequency, max_frequency, channels, max_order)
        with SystemMatrixFile(path) as file:
            grid, acquisition, stored = file.grid(plane), file.acquisition, file.frequency_index
            shape = acquisition.num_channels, acquisition.num_frequencies
            orders = mixing_orders(acquisition.drive_frequencies, acquisition.frequencies) if max_order else None
            candidates = np.zeros(shape, dtype=bool)
            candidates[:, stored] = rows.candidates(acquisition.frequencies, shape[0], orders)[:, stored]
            snr = None
            if file.snr is not None and (np.isfinite(file.snr) & (file.snr > 0)).any():
                snr = np.full(shape, -np.inf)
                snr[:, stored] = np.nan_to_num(file.snr, nan=-np.inf, posinf=np.finfo(np.float64).max)
            chosen = candidates if snr is None else rows.select(candidates, snr)
            wanted = np.flatnonzero(chosen[:, stored])
            foreground, background, subtracted = file.foreground(grid, wanted), None, None
            if len(file.background_index):
                background = file.background(wanted)
                weights = background_weights(file.foreground_index(grid), file.background_index)
                subtracted = 0.0 * weights if file.background_corrected else weights
            facts = {
                "source": Path(path).name,
                "plane": list(plane) if plane else None,
                "normal": grid.normal,
                "extent": list(grid.extent),
                "center": list(grid.center),
                "candidate_rows": int(candidates.sum()),
                "snr_threshold": snr_threshold,
                "min_frequency": min_frequency,
                "max_frequency": max_frequency if np.isfinite(max_frequency) else None,
                "channels": None if channels is None else list(channels),
                "max_order": max_order,
                "background_frames": len(file.background_index),
                "transfer_function_corrected": file.transfer_function_corrected,
                **acquisition_facts(acquisition),
            }
            frequencies, place = acquisition.frequencies, (grid.shape, grid.field_of_view)
        return cls._reduce(foreground, background, subtracted, chosen, snr, rows, frequencies, *place, facts)

    @classmethod
    def _reduce(
        cls,
        foreground: Complex,
        background: Complex | None,
        subtracted: NDArray[np.float64] | None,
        candidates: NDArray[np.bool_],
        snr: NDArray[np.float64] | None,
        rows: RowFilter,
        frequencies: NDArray[np.float64],
        grid: tuple[int, int],
        field_of_view: tuple[float, float],
        facts: dict[str, Any],
    ) -> "Calibration":
        """Correct the candidate rows for background, keep those of enough SNR, whiten them and reduce.

        ``foreground`` (rows, N), ``background`` (rows, B) in the order of acquisition, and how much of the latter to
        ``subtracted`` (B, N) from the former.
        """
        if not candidates.any():
            rows.select(candidates, None)
        if not np.isfinite(foreground).all() or not (background is None or np.isfinite(background).all()):
            raise InputError("system matrix: NaN or Inf in its foreground or background frames")
        if background is not None and subtracted is not None:
            foreground = foreground - background @ subtracted.astype(background.real.dtype)
            if snr is None:
                snr = np.full(candidates.shape, -np.inf)
                snr[candidates] = row_snr(foreground, background)
        selection = rows.select(candidates, snr)
        keep = selection[candidates]
        matrix, background = foreground[keep], None if background is None else background[keep]
        if 2 * len(matrix) <= RESIDUAL_FREEDOM:
            raise InputError(
                f"only {len(matrix)} rows selected, expected over {RESIDUAL_FREEDOM // 2}: lower a threshold"
            )
        weights, noise_known = row_weights(matrix, background)
        u, s, v = reduce_matrix(matrix * weights[:, None], subtracted if noise_known else None)
        half = len(matrix)
        best = None if snr is None else float(snr[candidates].max())
        return cls(
            grid=grid,
            field_of_view=field_of_view,
            selection=selection,
            frequencies=np.asarray(frequencies, dtype=np.float64),
            matrix=matrix.astype(np.complex64),
            weights=weights,
            singular_values=s.astype(np.float32),
            basis=np.ascontiguousarray(v, dtype=np.float32),
            projection=np.ascontiguousarray((u[:half] - 1j * u[half:]).T * weights),
            facts={"candidate_rows": int(candidates.sum()), "best_snr": best, **facts},
        )

    # -- frames -------------------------------------------------------------------------------------------------

    def rows(self, signals: NDArray[Any]) -> NDArray[np.complex64]:
        """Select the rows of frames.

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
            For another type or number of axes, NaN or Inf.
        MismatchError
            For channels, samples or frequencies other than the calibration's.
        """
        signals = np.asarray(signals)
        channels, frequencies = self.selection.shape
        kind = "complex" if signals.dtype.kind == "c" else "real" if signals.dtype.kind in "fiu" else "other"
        if (kind, signals.ndim) not in (("real", 3), ("complex", 3), ("complex", 2)):
            raise InputError(
                f"signals {signals.dtype} {signals.shape}: expected real (frames, {channels}, samples), complex "
                f"(frames, {channels}, {frequencies}) or complex (frames, {self.num_rows})"
            )
        if kind == "real":
            samples = self.facts.get("num_samples", 2 * (frequencies - 1))
            if signals.shape[2] != samples:
                raise MismatchError(f"signals of {signals.shape[2]} samples: the calibration has {samples} per period")
            signals = np.fft.rfft(signals, axis=-1)
        if signals.ndim == 3:
            if signals.shape[1:] != self.selection.shape:
                raise MismatchError(
                    f"signals {signals.shape}: the calibration has {channels} channels and {frequencies} frequencies"
                )
            signals = signals[:, self.selection]
        if signals.shape[1] != self.num_rows:
            raise MismatchError(f"signals {signals.shape}: the calibration has {self.num_rows} selected rows")
        rows = signals.astype(np.complex64)
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if broken.size:
            raise InputError(
                f"signals: NaN or Inf in {broken.size} of {len(rows)} frames, the first is frame {broken[0]}"
            )
        return rows

    def reduce(self, rows: NDArray[np.complex64]) -> ReducedFrames:
        """Reduce frames (F, M) complex, as `rows` returns them, to what they say about the image."""
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

    # -- file ---------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write to one HDF5 file, sealed by its SHA-256, which appears under its name only when whole."""
        write_calibration(path, vars(self))

    @classmethod
    def load(cls, path: str | Path) -> "Calibration":
        """Read a file that `save` wrote; `read_calibration` says how it is checked, and what is raised if it fails."""
        return cls(**read_calibration(path))

    @classmethod
    def open(cls, path: str | Path, **options: Any) -> "Calibration":
        """Load a saved calibration, or calibrate from an MDF file with the options of `from_mdf`."""
        if not is_calibration(path):
            return cls.from_mdf(path, **options)
        if any(value is not None for value in options.values()):
            raise InputError(f"{path}: is calibrated already; plane, thresholds and channels were chosen then")
        return cls.load(path)


def acquisition_facts(acquisition: Acquisition) -> dict[str, Any]:
    """What a measurement must share with the calibration it is reconstructed with, as JSON numbers."""
    return {
        "num_channels": acquisition.num_channels,
        "num_samples": acquisition.num_samples,
        "bandwidth": acquisition.bandwidth,
        "divider": acquisition.divider.reshape(-1).tolist(),
        "strength": acquisition.strength.reshape(len(acquisition.strength), -1)[0].tolist(),
    }
