"""Read variables of NumPy files and of MATLAB files before version 7.3, and their names, without unpickling."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mpi_fast.errors import FileFormatError
from mpi_fast.reading import read_regular

LARGEST = 2**31  # largest file in bytes
SMALL, COMPRESSED = 2**28, 100  # limits of a compressed variable: bytes, or this multiple of the file
Array = NDArray[Any]


def read_numpy(path: Path, variable: str | None) -> Array:
    """A variable of an ``.npz`` archive, or the array of an ``.npy`` file, checked before it is allocated."""
    content = read_regular(path, LARGEST, "a NumPy file")
    try:
        if path.suffix.lower() == ".npz":
            content = _member(path, content, variable)
        return _array(content)
    except FileFormatError:
        raise
    except Exception as error:  # NumPy evaluates the header as a Python literal, which may raise anything
        raise FileFormatError(f"{path}: not a NumPy file, or damaged: {error}") from error


def _member(path: Path, content: bytes, variable: str | None) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = {one.filename.removesuffix(".npy"): one for one in archive.infolist()}
        one = names.get(_name(path, variable, list(names)))
        if one is None:
            raise FileFormatError(f"{path}: {variable} is missing: it holds {', '.join(names)}")
        _check_size(path, one.filename.removesuffix(".npy"), one.file_size, len(content))
        return archive.read(one)  # also checks its CRC


def numpy_names(path: Path) -> list[str]:
    """Names of the variables in an ``.npz`` archive."""
    content = read_regular(path, LARGEST, "a NumPy file")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception as error:  # as in `read_numpy`
        raise FileFormatError(f"{path}: not a NumPy file, or damaged: {error}") from error


def _check_size(path: Path, name: str, size: int, held: int) -> None:
    largest = max(SMALL, COMPRESSED * held)
    if size > largest:
        raise FileFormatError(
            f"{path}: {name} unfolds to {size / 2**20:.0f} MiB; at most {largest >> 20} were expected"
        )


def _array(content: bytes) -> Array:
    """An array from an ``.npy`` file of any version, whose size must be that of its header."""
    file = io.BytesIO(content)
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = header(file)
    count = int(np.prod(shape, dtype=object))
    if dtype.hasobject or count * dtype.itemsize != len(content) - file.tell():
        raise ValueError(f"{dtype} {shape} in {len(content) - file.tell()} bytes")
    return np.frombuffer(content, dtype, count, file.tell()).reshape(shape, order="F" if fortran else "C")


def read_old_matlab(path: Path, variable: str | None) -> Array:
    """A variable of a ``.mat`` file of version 4 to 7, by SciPy."""
    from scipy.io import loadmat, whosmat

    content = read_regular(path, LARGEST, "a MATLAB file")
    try:
        shapes = {name: shape for name, shape, _ in whosmat(io.BytesIO(content))}
        name = _name(path, variable, list(shapes))
        if name not in shapes:
            raise FileFormatError(f"{path}: {name} is missing: it holds {', '.join(shapes) or 'nothing'}")
        _check_size(path, name, 8 * int(np.prod(shapes[name], dtype=object)), len(content))
        return np.asarray(loadmat(io.BytesIO(content), variable_names=[name])[name])
    except FileFormatError:
        raise
    except Exception as error:  # SciPy may raise anything on damaged files
        raise FileFormatError(f"{path}: not a MATLAB file, or damaged: {error}") from error


def old_matlab_names(path: Path) -> list[str]:
    """Names of the variables in a ``.mat`` file of version 4 to 7."""
    from scipy.io import whosmat

    content = read_regular(path, LARGEST, "a MATLAB file")
    try:
        return [name for name, _, _ in whosmat(io.BytesIO(content))]
    except Exception as error:  # as in `read_old_matlab`
        raise FileFormatError(f"{path}: not a MATLAB file, or damaged: {error}") from error


def _name(path: Path, variable: str | None, names: list[str]) -> str:
    if variable is not None:
        return variable
    if len(names) != 1:
        raise FileFormatError(f"{path}: holds {', '.join(names) or 'nothing'}: say which with --variable")
    return names[0]
