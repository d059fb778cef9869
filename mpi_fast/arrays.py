"""Arrays without MDF around them: MATLAB and NumPy files, and what the axes of the arrays in them mean.

Files are ``.npy``, ``.npz``, and ``.mat`` of any version: 7.3 is HDF5 and read by h5py, older ones by SciPy. Axes come
in the order in which the program that wrote them shows them: MATLAB stores its own reversed, which is undone. Any other
HDF5 file with datasets is read as it is.

What the axes mean follows from their lengths. Of a system matrix, the axis as long as the grid has voxels, and frames
without a sample besides, counts these; of a measurement, what is left beside one frame is the axis of frames. Of two
other axes the shorter one counts receive channels. Complex numbers are rows (frequency components), real numbers are
signals over time, which are transformed.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mpi_fast.array_files import read_numpy, read_old_matlab
from mpi_fast.calibration import Calibration
from mpi_fast.decomposition import Report, silent
from mpi_fast.errors import FileFormatError, InputError, MismatchError
from mpi_fast.grids import shown
from mpi_fast.mdf import Datasets
from mpi_fast.preprocessing import RowFilter

Numbers = NDArray[Any]
CHUNK = 64  # frames that are reconstructed at once


def read_array(path: str | Path, variable: str | None = None) -> Numbers:
    """Read a variable of a file.

    Parameters
    ----------
    path : str or Path
        ``.npy``, ``.npz``, ``.mat``, or HDF5.
    variable : str, optional
        Its name; not needed where there is only one. In HDF5 files the path of a dataset.

    Returns
    -------
    array of float64 or complex128
        Its axes in the order of the program that wrote it.

    Raises
    ------
    FileFormatError
        For a file that is missing, damaged or none of these, a variable that is not there, and one that holds no
        numbers, NaN or Inf.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        array = read_numpy(path, variable)
    elif suffix == ".mat" and not (path.is_file() and h5py.is_hdf5(path)):
        array = read_old_matlab(path, variable)
    else:
        array = _read_hdf5(path, variable)
    title = f"{path}: {variable or 'its variable'}"
    if array.dtype.kind not in "iufc" or array.size == 0:
        raise FileFormatError(f"{title}: {array.dtype} {array.shape}; real or complex numbers were expected")
    array = np.asarray(array, np.complex128 if array.dtype.kind == "c" else np.float64)
    broken = np.argwhere(~np.isfinite(array))
    if len(broken):
        raise FileFormatError(
            f"{title}: NaN or Inf in {len(broken)} of {array.size} numbers, the first at {tuple(broken[0].tolist())}"
        )
    return array


def _read_hdf5(path: Path, variable: str | None) -> Numbers:
    with closing(Datasets(path)) as file:
        names = [name for name in file.members("/") if not name.startswith("#")]
        if variable is None and len(names) != 1:
            raise FileFormatError(f"{path}: holds {', '.join(names) or 'nothing'}: say which with --variable")
        name = variable or names[0]
        stored = file.find(name)
        if stored is None:
            raise FileFormatError(f"{path}: {name} is missing: it holds {', '.join(names) or 'nothing'}")
        if stored.hole is not None:
            file.fail(name, stored.hole[1])
        array = file.complexes(name) if stored.dtype.names else stored.read()
        if array is None:
            file.fail(name, f"has type {stored.dtype}; numbers were expected")
        return array.T if _is_matlab(path) else array


def _is_matlab(path: Path) -> bool:
    """MATLAB writes its files behind a text that says so."""
    with path.open("rb") as file:
        return file.read(6) == b"MATLAB"


def calibrate_array(
    matrix: Numbers,
    grid: tuple[int, ...],
    field_of_view: tuple[float, ...],
    *,
    empty: Sequence[int] = (),
    axis: int | None = None,
    fastest: str = "x",
    frequencies: NDArray[np.float64] | None = None,
    sampling_rate: float | None = None,
    rows: RowFilter = RowFilter(),  # noqa: B008 (frozen)
    report: Report = silent,
    facts: dict[str, Any] | None = None,
) -> Calibration:
    """Calibrate from a system matrix of any layout; see the module's head.

    Parameters
    ----------
    matrix : array of two or three axes
        Voxels, rows or samples, and receive channels if there are several, in any order.
    grid, field_of_view
        (ny, nx) or (nz, ny, nx), and the extent along these axes in m.
    empty : sequence of int
        Which of the frames along the axis of voxels hold no sample: background frames, from 0.
    axis : int, optional
        The axis of voxels, where lengths do not tell.
    fastest : str
        Which coordinate changes from voxel to voxel: ``x`` as in MDF, or ``y`` as in MATLAB's ``reshape(_, ny, nx)``
        and ``reshape(_, ny, nx, nz)``.
    frequencies : (K,), optional
        Of the rows, in Hz; of signals over time they follow from ``sampling_rate``, in Hz. Without both, ``rows`` are
        not selected by frequency.
    rows : RowFilter
        Which rows to use.
    report : callable
        Told how far it is; see `decomposition.Report`.
    facts : dict, optional
        Kept in the calibration.

    Raises
    ------
    InputError
        For shapes that do not fit, or that fit in several ways, and as `Calibration.from_arrays`.
    """
    if fastest not in ("x", "y"):
        raise InputError(f"fastest {fastest!r}: expected x or y")
    count = math.prod(grid) + len(empty)
    wanted = f"{shown(grid)} voxels" + (f" and {len(empty)} frames without a sample" if empty else "")
    along = _the_axis(
        [i for i, n in enumerate(matrix.shape) if n == count], axis, matrix.shape, f"{count} for {wanted}"
    )
    spectra = _channels_first(np.moveaxis(matrix, along, -1), matrix.shape)
    known: dict[str, Any] = {"source": "array"}
    if spectra.dtype.kind != "c":
        samples = spectra.shape[1]
        known["num_samples"] = samples
        spectra = np.fft.rfft(spectra, axis=1)
        if sampling_rate is not None:
            frequencies = np.arange(samples // 2 + 1) * (sampling_rate / samples)
    is_empty = np.zeros(count, dtype=bool)
    if any(not 0 <= frame < count for frame in empty) or len(set(empty)) != len(empty):
        raise InputError(f"frames without a sample {list(empty)}: expected different numbers from 0 to {count - 1}")
    is_empty[list(empty)] = True
    filled, background = np.flatnonzero(~is_empty), np.flatnonzero(is_empty)
    if fastest == "y":
        *planes, ny, nx = grid
        filled = filled.reshape(*planes, nx, ny).swapaxes(-1, -2).reshape(-1)
    return Calibration.from_arrays(
        spectra[..., filled],
        frequencies,
        grid,
        field_of_view,
        background=spectra[..., background] if len(background) else None,
        order=(filled, background),
        rows=rows,
        report=report,
        facts={**known, "background_frames": len(background), **(facts or {})},
    )


def frames_of(
    array: Numbers, calibration: Calibration, *, empty: Sequence[int] = (), axis: int | None = None
) -> Numbers:
    """Frames of a measurement of any layout, as `Calibration.rows` takes them, less the mean of the empty ones.

    Parameters
    ----------
    array : array of one to three axes
        Rows or samples, receive channels if there are several, and frames if there are several, in any order.
    calibration : Calibration
        Of the scanner: its numbers of channels and rows tell which axis is which.
    empty : sequence of int
        Frames without a sample, from 0.
    axis : int, optional
        The axis of frames, where lengths do not tell.

    Raises
    ------
    MismatchError
        When no axis fits.
    InputError
        When several fit.
    """
    channels, count = calibration.selection.shape
    length = count if array.dtype.kind == "c" else int(calibration.facts.get("num_samples", 2 * (count - 1)))
    one = sorted((channels, length)) if channels > 1 else [length]
    single = sorted(array.shape) == one
    found = [i for i in range(array.ndim) if sorted(np.delete(array.shape, i)) == one]
    if not (single or found):
        kind = "frequencies" if array.dtype.kind == "c" else "samples"
        raise MismatchError(
            f"signals {array.shape}: expected frames of {shown(one)}: the calibration has {channels} "
            f"receive channels and {length} {kind}"
        )
    if single and not found:
        array, found = array[None], [0]
    along = _the_axis(found, axis, array.shape, "frames")
    frames = np.moveaxis(array, along, 0).reshape(array.shape[along], *np.delete(array.shape, along))
    if channels == 1:
        frames = frames[:, None]
    elif frames.shape[1] != channels:
        frames = frames.swapaxes(1, 2)
    background = [frame for frame in empty if 0 <= frame < len(frames)]
    if len(background) < len(empty) or len(set(empty)) == len(frames):
        raise InputError(f"frames without a sample {list(empty)}: expected some of the {len(frames)} frames, from 0")
    if background:
        frames = np.delete(frames, background, axis=0) - frames[background].mean(axis=0)
    return np.asarray(frames)


def _the_axis(found: list[int], wanted: int | None, shape: tuple[int, ...], what: str) -> int:
    """The one axis that fits, or the one that was asked for."""
    if wanted is not None:
        if wanted not in found:
            raise InputError(f"array {shape}: axis {wanted} does not count {what}")
        return wanted
    if not found:
        raise InputError(f"array {shape}: no axis has the length {what}")
    if len(found) > 1:
        raise InputError(f"array {shape}: several axes may count {what}: say which with --axis, from 0")
    return found[0]


def _channels_first(matrix: Numbers, shape: tuple[int, ...]) -> Numbers:
    """(channels, rows or samples, N) from those axes but the last in any order, or rows alone."""
    if matrix.ndim == 2:
        return matrix[None]
    if matrix.ndim != 3:
        raise InputError(f"system matrix {shape}: expected two axes, or three with receive channels")
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.swapaxes(0, 1)


class ArrayRows:
    """Frames of an array some at a time, as `pairing.MeasuredRows` has those of a file.

    Parameters
    ----------
    frames : array (F, ...)
        As `frames_of` returns them.
    first : int
        Number of the first.
    """

    def __init__(self, frames: Numbers, first: int = 0) -> None:
        self._frames, self._first = frames, first
        self.num_frames, self.begin = len(frames), 0
        self.numbers: NDArray[np.int64] = np.empty(0, np.int64)
        self.times: NDArray[np.float64] | None = None

    def __iter__(self) -> Iterator[Numbers]:
        for start in range(self.begin, self.num_frames, CHUNK):
            part = self._frames[start : start + CHUNK]
            self.numbers = self._first + np.arange(start, start + len(part))
            yield part
