"""System matrices: the spectra of a delta sample at every voxel."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.hdf5_output import OutputFile
from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.array_types import ComplexArray, FloatArray, IntArray, Plane, Triple
from mpi_fast.mdf.geometry import read_grid, read_size
from mpi_fast.mdf.grid import Grid
from mpi_fast.mdf.signals import SignalFile, find_unusable, items_per_block, run_length
from mpi_fast.mdf.write import (
    Metadata,
    count_points,
    put,
    put_common,
    put_flags,
    put_grid,
    require_distinct,
    require_shape,
)

_DATA = "/measurement/data"


class SystemMatrixFile(SignalFile):
    """A calibration: the spectra of a delta sample at every voxel, and background frames between them.

    A row is one frequency in one channel: row `c * K' + k` is channel c at `frequency_index[k]`.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    size : tuple of int
        Voxels along x, y, z.
    snr : float64 array (C, K'), or None
        The signal-to-noise ratios stored with the matrix.
    background_index : int64 array (B,)
        Position of each background frame in the order of acquisition, ascending, 0-based among all frames.

    Raises
    ------
    FileFormatError
        If the file is damaged, is not a system matrix, or its parts do not fit each other.
    MismatchError
        If the matrix has several periods (patches) per frame.
    """

    def _check_kind(self) -> None:
        if self.datasets.find("/calibration/size") is None:
            kind = "" if self.datasets.members("/calibration") else ": this is a measurement"
            self.datasets.fail("/calibration/size", f"is missing{kind}; a system matrix on a regular grid was expected")

    def _is_processed(self) -> bool | None:
        return True if self._fast else None

    def _check(self) -> None:
        super()._check()
        if self.acquisition.periods_per_frame != 1:
            raise MismatchError(
                f"{self.path}: /measurement/data has {self.acquisition.periods_per_frame} periods per frame; "
                "only single-patch system matrices, with one period per frame, are supported"
            )
        self.size = read_size(self.datasets, "/calibration")
        if self._foreground.size != math.prod(self.size):
            self._fail_data(
                f"has {self._foreground.size} foreground frames; /calibration/size {self.size} needs "
                f"{math.prod(self.size)}",
            )
        name = "/calibration/isMeanderingGrid"
        if self.datasets.flag(name) and not self._permuted and self.datasets.find("/calibration/positions") is None:
            self.datasets.fail(
                name,
                "is set without a framePermutation: the frames are raw, in the order of the robot; convert "
                "the file with MPIFiles.saveasMDF first",
            )
        self.snr = self._read_snr()
        self._background = self._by_time(self._background)
        self.background_index: IntArray = self._acquired[self._background]

    def _read_snr(self) -> FloatArray | None:
        name = "/calibration/snr"
        if self.datasets.find(name) is None:
            return None
        snr = self.datasets.numbers(name)
        channels, rows = self.acquisition.num_channels, self.frequency_index.size
        if snr.shape[-2:] == (channels, self.acquisition.num_frequencies) != (channels, rows):
            snr = snr[..., self.frequency_index]
        elif snr.shape[-2:] == (channels, rows):
            snr = snr[..., self._order]
        if snr.shape[-2:] != (channels, rows) or snr.size != channels * rows:
            self.datasets.fail(name, f"has shape {snr.shape}; J x C x K = 1 x {channels} x {rows} was expected")
        return snr.reshape(channels, rows)

    def _called(self, stored: int) -> str:
        """Return the voxel of a stored frame for messages, counted in the order of storage."""
        if stored in self._background:
            return f"background frame {stored}, as stored"
        return f"voxel {int(np.searchsorted(self._foreground, stored))} of {self._foreground.size}, as stored"

    @property
    def num_rows(self) -> int:
        """C * K', the rows of the matrix."""
        return self.acquisition.num_channels * self.frequency_index.size

    @property
    def delta_sample_size(self) -> Triple | None:
        """Size of the delta sample along x, y, z in m, if the file states it."""
        name = "/calibration/deltaSampleSize"
        return None if self.datasets.find(name) is None else self.datasets.triple(name)

    @property
    def volume_extent(self) -> Triple:
        """The field of view of all planes together: size along x, y, z in m."""
        return self.datasets.triple("/calibration/fieldOfView")

    @property
    def voxel_order(self) -> str:
        """The order of the voxels, as a text for users."""
        if self.datasets.find("/calibration/positions") is not None:
            return "as /calibration/positions says"
        mirrored = [axis for axis, width in zip("xyz", self.volume_extent, strict=True) if width < 0]
        against = f", mirrored along {' and '.join(mirrored)}" if mirrored else ""
        order = "/calibration/order"
        return (self.datasets.text(order) if self.datasets.find(order) is not None else "xyz") + against

    def grid(self, plane: Plane | None = None) -> Grid:
        """Return the grid of all voxels, or of one plane of them.

        Parameters
        ----------
        plane : (str, int), optional
            Axis and 0-based index, such as ("z", 9). Without it a grid of a single voxel along one axis is a plane, and
            any other a volume.

        Raises
        ------
        MismatchError
            If the grid has no such plane.
        FileFormatError
            If a field of view is zero or not finite, or if /calibration/positions contradict the grid.
        """
        return read_grid(self.datasets, "/calibration", plane, self._background)

    def foreground(self, grid: Grid, rows: IntArray | None = None) -> ComplexArray:
        """Read the matrix for the voxels of a plane or a volume.

        Parameters
        ----------
        grid : Grid
            Result of `grid`; its voxels become the columns.
        rows : int64 array, optional
            The rows to read; all by default.

        Returns
        -------
        complex64 or complex128 array (rows, voxels)
            In the precision of the file. Background-corrected only if `background_corrected`.

        Raises
        ------
        FileFormatError
            If these rows contain NaN, Inf or numbers too large to compute with, or if every voxel is zero.
        """
        matrix = self.rows(grid, rows)
        empty = np.flatnonzero(~matrix.any(axis=0)) if matrix.size else np.empty(0)
        if empty.size:
            problem = f"is exactly zero in {empty.size} of {matrix.shape[1]} voxels, from voxel {empty[0]} on"
            if empty.size == matrix.shape[1]:
                self._fail_data(f"{problem}; a delta sample gives a signal in most")
            self.datasets.warn(_DATA, f"{problem}; was the calibration stopped?")
        return matrix

    def rows(self, grid: Grid, rows: IntArray | None = None) -> ComplexArray:
        """Read as `foreground` does, without its check for zero voxels, because single rows may be zero."""
        return self._read(self._frames_of(grid), rows)

    def foreground_index(self, grid: Grid) -> IntArray:
        """Return the position of each voxel in the order of acquisition: int64 (voxels,), 0-based among all frames."""
        return self._acquired[self._frames_of(grid)]

    def _frames_of(self, grid: Grid) -> IntArray:
        if grid.voxels.max() >= self._foreground.size:
            raise MismatchError(f"{self.path}: the grid is of another file: {self.size} voxels were expected")
        return self._foreground[grid.voxels]

    def background(self, rows: IntArray | None = None) -> ComplexArray:
        """Read the background frames as stored, in the order of `background_index`: array (rows, B)."""
        return self._read(self._background, rows)

    def _read(self, frames: IntArray, rows: IntArray | None) -> ComplexArray:
        rows = np.arange(self.num_rows) if rows is None else np.asarray(rows, np.int64)
        if rows.ndim != 1 or (rows.size and not 0 <= rows.min() <= rows.max() < self.num_rows):
            raise InputError(f"rows: a list of numbers from 0 to {self.num_rows - 1} was expected")
        out = np.empty((rows.size, frames.size), self._dtype)
        channel, point = np.divmod(rows, self.frequency_index.size)
        stored = channel * self.frequency_index.size + self._order[point]
        if frames.size and self._fourier and self._fast:
            self._read_rows(frames, stored, out)
        elif frames.size:
            self._read_frames(frames, stored, out)
        self._refuse_unusable(out, frames, channel, point)
        return out

    def _refuse_unusable(self, values: ComplexArray, frames: IntArray, channel: IntArray, point: IntArray) -> None:
        bad = find_unusable(values)
        if bad is None:
            return
        row, column = np.argwhere(bad)[0]
        hertz = self.acquisition.frequencies[self.frequency_index[point[row]]]
        value = values[row, column]
        found = f"{abs(value):.3g}, too large to compute with," if np.isfinite(value) else "NaN or Inf"
        self._fail_data(
            f"holds {found} in channel {channel[row]} at {hertz / 1e3:.6g} kHz, {self._called(int(frames[column]))}, "
            f"and in {int(bad.sum()) - 1} more places; finite numbers were expected"
        )

    def _read_rows(self, frames: IntArray, rows: IntArray, out: ComplexArray) -> None:
        """Fill `out` if all frames of a row are stored side by side: by channels, a few rows at once."""
        channel, point = np.divmod(rows, self.frequency_index.size)
        first, last = int(frames.min()), int(frames.max()) + 1
        step = items_per_block(last - first)
        for c, block in sorted({(int(c), int(b)) for c, b in zip(channel, point // step, strict=True)}):
            hit = np.flatnonzero((channel == c) & (point // step == block))
            # Reads only the range of the wanted rows, so that a few selected rows are read quickly.
            low, high = int(point[hit].min()), int(point[hit].max()) + 1
            spectra = self._spectra(slice(first, last), slice(0, 1), slice(c, c + 1), slice(low, high))
            out[hit] = spectra[frames - first, 0, 0][:, point[hit] - low].T

    def _read_frames(self, frames: IntArray, rows: IntArray, out: ComplexArray) -> None:
        """Fill `out`, with rows as stored, if each frame is stored in one piece: a few frames at once."""
        ascending = np.argsort(frames)
        frames = frames[ascending]
        limit, start = self._frames_per_block(), 0
        while start < frames.size:
            count = run_length(frames[start : start + limit])
            first = int(frames[start])
            spectra = self._spectra(slice(first, first + count), slice(0, 1)).reshape(count, -1)
            out[:, ascending[start : start + count]] = spectra[:, rows].T
            start += count


def write_system_matrix(
    path: str | Path,
    foreground: ComplexArray,
    *,
    size: tuple[int, int, int],
    field_of_view: Triple,
    acquisition: Acquisition,
    center: Triple = (0.0, 0.0, 0.0),
    background: ComplexArray | None = None,
    background_index: IntArray | None = None,
    frequency_index: IntArray | None = None,
    snr: FloatArray | None = None,
    delta_sample_size: Triple | None = None,
    background_corrected: bool = False,
    method: str = "simulation",
    metadata: Metadata | None = None,
) -> None:
    """Write a system matrix as J x C x K x N with the frame axis fastest.

    Parameters
    ----------
    path : str or Path
    foreground : complex array (C, K', voxels)
        Spectra of the delta sample; voxels in xyz order, x fastest.
    size, field_of_view, center : tuples of three
        Voxels along x, y, z; extent and centre of the grid in m.
    acquisition : Acquisition
        With one period per frame.
    background : complex array (C, K', B), optional
        Spectra without the sample; stored after the foreground.
    background_index : int64 array (B,), optional
        Position of each background frame in the order of acquisition, 0-based among all frames; the voxels have the
        other positions in their order. By default the background came last.
    frequency_index : int64 array (K',), optional
        The 0-based frequencies given; all K by default.
    snr : float64 array (C, K'), optional
    delta_sample_size : tuple of three, optional
        In m.
    background_corrected : bool
    method : str
        "simulation", "robot" or "hybrid".
    metadata : Metadata, optional

    Raises
    ------
    InputError
        If the shapes do not fit each other, or the file cannot be created there.
    """
    if foreground.dtype.kind != "c":
        raise InputError(f"foreground: complex spectra were expected, not {foreground.dtype}")
    points = count_points(acquisition, frequency_index)
    voxels = int(np.prod(size))
    require_shape("foreground", foreground, (acquisition.num_channels, points, voxels))
    if background is None:
        background = np.empty((acquisition.num_channels, points, 0), foreground.dtype)
    require_shape("background", background, (acquisition.num_channels, points, background.shape[-1]))
    if snr is not None:
        require_shape("snr", snr, (acquisition.num_channels, points))
    if acquisition.periods_per_frame != 1:
        raise InputError(f"acquisition: one period per frame was expected, not {acquisition.periods_per_frame}")
    total = voxels + background.shape[-1]
    permutation = _permutation(background_index, background.shape[-1], total)
    with atomic_path(path) as temporary, OutputFile(temporary) as h5:
        put_common(h5, acquisition, metadata or Metadata(), total)
        shape = (1, acquisition.num_channels, points, total)
        data = h5.create_dataset("/measurement/data", shape, foreground.dtype)
        data[0, :, :, :voxels] = foreground
        data[0, :, :, voxels:] = background
        is_background = np.arange(total) >= voxels
        put_flags(h5, is_background, frequency_index, background_corrected, fast=True, permutation=permutation)
        put_grid(h5, "/calibration", size, field_of_view, center)
        put(h5, "/calibration/method", method)
        put(h5, "/calibration/snr", None if snr is None else snr[np.newaxis])
        put(h5, "/calibration/deltaSampleSize", delta_sample_size)


def _permutation(background_index: IntArray | None, count: int, total: int) -> IntArray | None:
    """Return the order of acquisition of the stored frames, foreground first; None if it is the order of storage."""
    if background_index is None:
        return None
    index = np.asarray(background_index)
    require_shape("background_index", index, (count,))
    require_distinct("background_index", index, total)
    return np.concatenate([np.setdiff1d(np.arange(total), index), index])
