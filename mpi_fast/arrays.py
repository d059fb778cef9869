"""Arrays in MATLAB and NumPy files, and the meaning of their axes.

Files are ``.npy``, ``.npz``, and ``.mat`` of any version: 7.3 is HDF5 and read by h5py, older ones by SciPy. The order
of axes is that of the program that wrote them. MATLAB stores its axes in reverse, which is corrected. Any other HDF5
file with datasets is read without changes.

The meaning of the axes follows from their lengths. In a system matrix, the axis of voxels is as long as the number of
voxels plus the number of frames without a sample. In a measurement, the axis that does not belong to a single frame is
the axis of frames. Of two other axes the shorter one is that of receive channels. Complex numbers are rows (frequency
components). Real numbers are signals over time, which are transformed.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mpi_fast.array_files import numpy_names, old_matlab_names, read_numpy, read_old_matlab
from mpi_fast.calibration import Calibration
from mpi_fast.checked import checked_array
from mpi_fast.decomposition import Report, silent
from mpi_fast.errors import FileFormatError, InputError, MismatchError
from mpi_fast.grids import shown
from mpi_fast.mdf import Datasets
from mpi_fast.preprocessing import RowFilter

Numbers = NDArray[Any]
CHUNK = 64  # frames in one chunk


def read_array(path: str | Path, variable: str | None = None) -> Numbers:
    """Read a variable of a file.

    Parameters
    ----------
    path : str or Path
        File: ``.npy``, ``.npz``, ``.mat``, or HDF5.
    variable : str, optional
        Name of the variable; not needed if there is only one. In HDF5 files, the path of a dataset.

    Returns
    -------
    array of float64 or complex128
        The variable, with its axes in the order of the program that wrote it.

    Raises
    ------
    FileFormatError
        For a file that is missing, damaged or of another kind, for a missing variable, and for a variable without
        numbers, or with NaN or Inf.
    """
    path = Path(path)
    array = _read_stored(path, variable)
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


def contents(path: str | Path) -> dict[str, str]:
    """Describe the variables of a file by type and shape, or by the reason why one cannot be read.

    Raises
    ------
    FileFormatError
        For a file that is missing, damaged or of another kind.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return {"its array": _type_and_shape(read_numpy(path, None))}
    if suffix == ".npz":
        names = numpy_names(path)
    elif _is_old_matlab(path):
        names = old_matlab_names(path)
    else:
        with closing(Datasets(path)) as file:
            names = [name for name in file.members("/") if not name.startswith("#")]
    found = {}
    for name in names:
        try:
            found[name] = _type_and_shape(_read_stored(path, name))
        except FileFormatError as error:
            found[name] = str(error).removeprefix(f"{path}: ")
    return found


def _type_and_shape(array: Numbers) -> str:
    return f"{array.dtype}, {shown(array.shape) or 'one number'}"


def _read_stored(path: Path, variable: str | None) -> Numbers:
    """A variable of any type, as it is stored."""
    if path.suffix.lower() in (".npz", ".npy"):
        return read_numpy(path, variable)
    return read_old_matlab(path, variable) if _is_old_matlab(path) else _read_hdf5(path, variable)


def _is_old_matlab(path: Path) -> bool:
    return path.suffix.lower() == ".mat" and not (path.is_file() and h5py.is_hdf5(path))


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
    """Whether the file begins with the header text of MATLAB."""
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
    """Calibrate from a system matrix of any layout; see the head of this module.

    Parameters
    ----------
    matrix : array of two or three axes
        Voxels, rows or samples, and receive channels if there are several, in any order.
    grid, field_of_view
        (ny, nx) or (nz, ny, nx), and the extent along these axes in m.
    empty : sequence of int
        Numbers, from 0, of the frames along the axis of voxels that are background frames.
    axis : int, optional
        The axis of voxels, if it is ambiguous.
    fastest : str
        Coordinate that changes fastest from voxel to voxel: ``x`` as in MDF, or ``y`` as in MATLAB's ``reshape(_, ny,
        nx)`` and ``reshape(_, ny, nx, nz)``.
    frequencies : (K,), optional
        Frequencies of the rows in Hz. For signals over time they follow from ``sampling_rate`` in Hz. Without both,
        ``rows`` does not select by frequency.
    rows : RowFilter
        Selection of the rows.
    report : callable
        Called with the progress; see `decomposition.Report`.
    facts : dict, optional
        Stored in the calibration.

    Raises
    ------
    InputError
        For shapes that do not fit, or that fit in several ways, and as `Calibration.from_arrays`.
    """
    matrix = checked_array("system matrix", matrix)
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
    """Frames of a measurement of any layout, as `Calibration.rows` takes them, less the mean empty frame.

    Parameters
    ----------
    array : array of one to three axes
        Rows or samples, receive channels if there are several, and frames if there are several, in any order.
    calibration : Calibration
        Calibration of the scanner; its numbers of channels and rows determine the meaning of the axes.
    empty : sequence of int
        Numbers of the frames without a sample, from 0.
    axis : int, optional
        The axis of frames, if it is ambiguous.

    Raises
    ------
    MismatchError
        If no axis fits.
    InputError
        If several axes fit, and for anything else than an array of numbers.
    """
    array = checked_array("signals", array)
    channels, count = calibration.selection.shape
    length = count if array.dtype.kind == "c" else calibration.num_samples
    one = sorted((channels, length)) if channels > 1 else [length]
    single = sorted(array.shape) == one
    found = [i for i in range(array.ndim) if sorted(np.delete(array.shape, i)) == one]
    if not (single or found):
        kind = "frequencies" if array.dtype.kind == "c" else "samples"
        raise MismatchError(
            f"signals {array.shape}: expected frames of {shown(one)}: the calibration has {channels} "
            f"receive channels and {length} {kind}"
        )
    if single:  # so no axis is left for frames
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
    """The only axis that fits, or the requested one."""
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
    """(channels, rows or samples, N), from an array whose first axes may be swapped, or may lack channels."""
    if matrix.ndim == 2:
        return matrix[None]
    if matrix.ndim != 3:
        raise InputError(f"system matrix {shape}: expected two axes, or three with receive channels")
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.swapaxes(0, 1)


class ArrayRows:
    """Iterates over the frames of an array in chunks, as `pairing.MeasuredRows` does for a file.

    Parameters
    ----------
    frames : array (F, ...)
        Frames as `frames_of` returns them.
    first : int
        Number of the first frame.
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
