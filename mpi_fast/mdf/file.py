"""An HDF5 file as MDF: datasets under their names and aliases, and errors that name file and dataset."""

from __future__ import annotations

import math
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import FileFormatError, InputError, MismatchError
from mpi_fast.mdf.grid import Grid
from mpi_fast.mdf.types import FloatArray, IntArray, Plane, Triple


def open_hdf5(path: str | Path) -> Any:
    """Open an HDF5 file read-only; FileFormatError says what is wrong with it if that fails."""
    path = Path(path)
    if not path.exists():
        raise FileFormatError(f"{path}: there is no such file; an MDF file was expected")
    if path.is_dir():
        raise FileFormatError(f"{path}: this is a folder; an MDF file was expected")
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            problem = "the file is truncated; copy or download it again"
        elif "signature not found" in str(error):
            problem = "this is not an HDF5 file; an MDF (HDF5) file was expected"
        else:
            problem = f"the file cannot be opened: {error}"
        raise FileFormatError(f"{path}: {problem}") from error


def find_dataset(h5: Any, name: str) -> Any | None:
    """Return the dataset `name`, or None if there is none, or a group, or a dataset without data."""
    item = h5.get(name)
    return item if isinstance(item, h5py.Dataset) and item.shape is not None else None


class MDFFile:
    """An open MDF file: datasets under their names and aliases, checked and named in every error.

    Parameters
    ----------
    path : str or Path

    Raises
    ------
    FileFormatError
        The file is missing, a folder, truncated, not HDF5, or not MDF version 2.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._h5 = open_hdf5(self.path)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        if self._find("/version") is None:
            self._fail("/version", "is missing: this HDF5 file is not MDF")
        version = self._text("/version")
        if not version.startswith("2."):
            self._fail("/version", f"is {version!r}; MDF version 2 was expected")

    def close(self) -> None:
        """Close the file; closing twice is fine."""
        self._h5.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _fail(self, name: str, problem: str) -> NoReturn:
        raise FileFormatError(f"{self.path}: {name} {problem}")

    def _has_group(self, name: str) -> bool:
        group = self._h5.get(name)
        return isinstance(group, h5py.Group) and len(group) > 0

    def _find(self, *names: str) -> Any | None:
        """Return the first of the datasets `names` that exists."""
        found = (find_dataset(self._h5, name) for name in names)
        return next((item for item in found if item is not None), None)

    def _select(self, dataset: Any, key: Any) -> Any:
        try:
            return dataset[key]
        except OSError as error:
            self._fail(dataset.name, f"cannot be read, the file is damaged: {error}")

    def _array(self, *names: str, default: Any = None) -> NDArray[Any]:
        """Read a whole, small dataset; without `default` it is mandatory."""
        dataset = self._find(*names)
        if dataset is None and default is None:
            self._fail(names[0], "is missing; it is mandatory here")
        return np.asarray(default if dataset is None else self._select(dataset, ()))

    def _scalar(self, *names: str, default: float | None = None) -> Any:
        values = self._array(*names, default=default)
        if values.size != 1:
            self._fail(names[0], f"has shape {values.shape}; one value was expected")
        return values.reshape(-1)[0]

    def _float(self, *names: str, default: float | None = None) -> float:
        value = self._scalar(*names, default=default)
        if np.asarray(value).dtype.kind not in "biuf":
            self._fail(names[0], f"is {value!r}; a number was expected")
        return float(value)

    def _int(self, *names: str, default: int | None = None) -> int:
        value = self._float(*names, default=default)
        # NaN and infinity fail this comparison too.
        if not 1 <= value < 2**62 or value != int(value):
            self._fail(names[0], f"is {value:g}; a whole number of at least 1 was expected")
        return int(value)

    def _positive(self, *names: str) -> float:
        value = self._float(*names)
        if not 0 < value < math.inf:
            self._fail(names[0], f"is {value:g}; a positive number was expected")
        return value

    def _flag(self, name: str, default: bool = False) -> bool:
        return bool(self._float(name, default=default))

    def _text(self, name: str) -> str:
        value = self._scalar(name)
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def _numbers(self, *names: str) -> FloatArray:
        values = self._array(*names)
        if values.dtype.kind not in "biuf":
            self._fail(names[0], f"has type {values.dtype}; real numbers were expected")
        return values.astype(np.float64)

    def _integers(self, name: str) -> IntArray:
        values = self._numbers(name)
        if not np.all(np.abs(values) < 2**62) or np.any(values % 1):
            self._fail(name, "holds other than whole numbers")
        return values.astype(np.int64)

    def _triple(self, name: str, default: Triple | None = None) -> Triple:
        if default is not None and self._find(name) is None:
            return default
        values = self._numbers(name)
        if values.size != 3:
            self._fail(name, f"has shape {values.shape}; 3 values, for x, y and z, were expected")
        x, y, z = values.reshape(-1).tolist()
        return x, y, z

    def _indices(self, flag: str, name: str, limit: int) -> IntArray | None:
        """Read a 1-based index list as 0-based, or None where `flag` is off or, lacking it, the list."""
        if not self._flag(flag, default=self._find(name) is not None):
            return None
        index = self._integers(name).reshape(-1) - 1
        if index.size == 0 or index.min() < 0 or index.max() >= limit or np.unique(index).size != index.size:
            self._fail(name, f"does not hold distinct numbers from 1 to {limit}")
        return index

    def _grid(self, group: str, plane: Plane | None) -> Grid:
        """Select a plane of the 3D grid in `group`, /calibration or /reconstruction."""
        size = self._size(group)
        extent = self._triple(f"{group}/fieldOfView")
        center = self._triple(f"{group}/fieldOfViewCenter", (0.0, 0.0, 0.0))
        axis, index = self._plane(size, plane)
        n, width = size[axis], extent[axis]
        # The volume is indexed [z, y, x]; taking one axis out leaves the image [row, column].
        voxels = np.take(self._volume(group, size), index, axis=2 - axis).reshape(-1)
        return Grid(
            normal="xyz"[axis],
            size=_replaced(size, axis, 1),
            extent=_replaced(extent, axis, width / n),
            center=_replaced(center, axis, center[axis] + ((index + 0.5) / n - 0.5) * width),
            voxels=voxels,
        )

    def _size(self, group: str) -> tuple[int, int, int]:
        size = self._triple(f"{group}/size")
        if any(not n >= 1 or n != int(n) for n in size):
            self._fail(f"{group}/size", f"is {size}; three whole numbers of at least 1 were expected")
        x, y, z = map(int, size)
        return x, y, z

    def _plane(self, size: tuple[int, int, int], plane: Plane | None) -> tuple[int, int]:
        """Return axis number and index of the plane asked for, or of the only one there is."""
        grid = " x ".join(map(str, size))
        if plane is None:
            if size.count(1) == 1:
                return size.index(1), 0
            middle = size[2] // 2
            raise MismatchError(
                f"{self.path}: the grid of {grid} voxels is not a plane, and images are two-dimensional; "
                f"select a plane, for example --plane z={middle} (plane=('z', {middle}))"
            )
        letter, index = plane
        if letter not in ("x", "y", "z"):
            raise InputError(f"plane: the axis is {letter!r}; x, y or z was expected")
        axis = "xyz".index(letter)
        if not 0 <= index < size[axis]:
            raise MismatchError(
                f"{self.path}: there is no plane {letter}={index}: the grid has {grid} voxels, "
                f"so {letter} goes from 0 to {size[axis] - 1}"
            )
        return axis, index

    def _volume(self, group: str, size: tuple[int, int, int]) -> IntArray:
        """Return the storage index of every voxel, an array [z, y, x], whatever /order says."""
        name = f"{group}/order"
        order = self._text(name).lower() if self._find(name) is not None else "xyz"
        if sorted(order) != ["x", "y", "z"]:
            self._fail(name, f"is {order!r}; an order of the letters x, y and z was expected")
        slowest_first = order[::-1]
        stored = np.arange(math.prod(size)).reshape([size["xyz".index(a)] for a in slowest_first])
        return stored.transpose([slowest_first.index(a) for a in "zyx"])


def _replaced(values: Any, axis: int, value: Any) -> Any:
    return (*values[:axis], value, *values[axis + 1 :])
