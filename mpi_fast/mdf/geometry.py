"""The grid of /calibration or /reconstruction, and the assignment of stored values to voxels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mpi_fast import grids
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.mdf.array_types import FloatArray, IntArray, Plane, Triple
from mpi_fast.mdf.datasets import Datasets, shown
from mpi_fast.mdf.grid import Grid

Size = tuple[int, int, int]
_OFF_GRID = 0.25  # largest distance of a position from the centre of its voxel, in voxels


def read_size(datasets: Datasets, group: str) -> Size:
    """Read the number of voxels along x, y and z."""
    size = datasets.triple(f"{group}/size")
    if any(not 1 <= n < 2**31 or n != int(n) for n in size):
        datasets.fail(f"{group}/size", f"is {size}; three whole numbers of at least 1 were expected")
    x, y, z = map(int, size)
    return x, y, z


def read_grid(datasets: Datasets, group: str, plane: Plane | None, background: IntArray | None = None) -> Grid:
    """Read the grid in `group`: the volume, or a plane of it.

    An axis with a negative field of view is mirrored, which means that it was stored in reverse. All axes of the
    returned grid are ascending.

    Parameters
    ----------
    datasets : Datasets
    group : str
        /calibration or /reconstruction.
    plane : (str, int), optional
        Axis and 0-based index; not needed if one axis has a single voxel. Without it a volume is read completely.
    background : int64 array, optional
        Stored background frames, in case the positions include them.

    Raises
    ------
    FileFormatError
        If a field of view in the plane or volume is zero or not finite, or if positions contradict the grid.
    MismatchError
        If the grid has no such plane.
    """
    size = read_size(datasets, group)
    extent = datasets.triple(f"{group}/fieldOfView")
    center = _center(datasets, group)
    chosen = _plane(datasets, size, plane)
    for other in range(3):
        if (chosen is None or other != chosen[0]) and not 0 < abs(extent[other]) < math.inf:
            datasets.fail(
                f"{group}/fieldOfView",
                f"is {extent[other]:g} m along {'xyz'[other]}; a size other than zero was expected in the "
                f"{'volume' if chosen is None else 'plane'}",
            )
    voxels = _volume(datasets, group, size, extent, center, background)
    if chosen is None:
        width, height, depth = map(abs, extent)
        return Grid("", size, (width, height, depth), center, voxels.reshape(-1))
    axis, index = chosen
    n, width = size[axis], abs(extent[axis]) if math.isfinite(extent[axis]) else 0.0
    return Grid(
        normal="xyz"[axis],
        size=_replaced(size, axis, 1),
        extent=_replaced(tuple(map(abs, extent)), axis, width / n),
        center=_replaced(center, axis, center[axis] + ((index + 0.5) / n - 0.5) * width),
        # The volume is indexed [z, y, x]; taking one axis out leaves the image [row, column].
        voxels=np.take(voxels, index, axis=2 - axis).reshape(-1),
    )


def _center(datasets: Datasets, group: str) -> Triple:
    """Read the centre of the grid; if only positions are stated, their centre."""
    name, positions = f"{group}/fieldOfViewCenter", _positions(datasets, group)
    if datasets.find(name) is None and positions is not None:
        x, y, z = ((positions.min(axis=0) + positions.max(axis=0)) / 2).tolist()
        return x, y, z
    center = datasets.triple(name, (0.0, 0.0, 0.0))
    if not all(map(math.isfinite, center)):
        datasets.warn(name, f"is {center}; taken as the origin, because finite numbers were expected")
        return 0.0, 0.0, 0.0
    return center


def _plane(datasets: Datasets, size: Size, plane: Plane | None) -> tuple[int, int] | None:
    """Return axis number and index of the requested plane, or of the only one; None for a volume."""
    grid = grids.shown(size)
    if plane is None:
        # A line is also a plane, with one row if it runs along x.
        return (max(axis for axis in range(3) if size[axis] == 1), 0) if 1 in size else None
    letter, index = plane
    if letter not in ("x", "y", "z"):
        raise InputError(f"plane: the axis is {letter!r}; x, y or z was expected")
    axis = "xyz".index(letter)
    if not 0 <= index < size[axis]:
        raise MismatchError(
            f"{datasets.path}: there is no plane {letter}={index}: the grid has {grid} voxels, "
            f"so {letter} goes from 0 to {size[axis] - 1}"
        )
    return axis, index


def _volume(
    datasets: Datasets, group: str, size: Size, extent: Triple, center: Triple, background: IntArray | None
) -> IntArray:
    """Return the storage index of every voxel, an array [z, y, x] with ascending axes for any order of storage."""
    positions = _positions(datasets, group)
    if positions is not None:
        return _sorted(datasets, f"{group}/positions", positions, size, extent, center, background)
    name = f"{group}/order"
    order = datasets.text(name).lower() if datasets.find(name) is not None else "xyz"
    if sorted(order) != ["x", "y", "z"]:
        datasets.fail(name, f"is {shown(order)}; an order of the letters x, y and z was expected")
    slowest_first = order[::-1]
    stored = np.arange(math.prod(size), dtype=np.int64).reshape([size["xyz".index(a)] for a in slowest_first])
    volume: IntArray = stored.transpose([slowest_first.index(a) for a in "zyx"])
    return np.flip(volume, tuple(2 - axis for axis in range(3) if extent[axis] < 0))


def _positions(datasets: Datasets, group: str) -> FloatArray | None:
    name = f"{group}/positions"
    if datasets.find(name) is None:
        return None
    positions = datasets.numbers(name)
    if positions.ndim != 2 or positions.shape[1] != 3 or not positions.size:
        datasets.fail(name, f"has shape {positions.shape}; x, y and z of every voxel were expected")
    if not np.isfinite(positions).all():
        datasets.fail(name, "holds NaN or Inf; x, y and z of every voxel were expected, in m")
    return positions


def _sorted(
    datasets: Datasets,
    name: str,
    positions: FloatArray,
    size: Size,
    extent: Triple,
    center: Triple,
    background: IntArray | None,
) -> IntArray:
    """Find the voxel of every position; raises FileFormatError unless they are a permutation of the grid."""
    count = math.prod(size)
    if background is not None and len(positions) == count + background.size:
        positions = np.delete(positions, background, axis=0)
    if len(positions) != count:
        datasets.fail(name, f"has {len(positions)} positions; the grid has {count} voxels")
    nearest, off = _nearest(positions, size, extent, center)
    middle = (positions.min(axis=0) + positions.max(axis=0)) / 2
    if off.size and not (moved := _nearest(positions, size, extent, middle))[1].size:
        nearest, off = moved
        datasets.warn(name, f"lie about {_shown(middle)} m, but the grid about {_shown(center)} m: taken as moved")
    if off.size:
        datasets.fail(
            name,
            f"contradicts the grid: position {off[0]} is {_shown(positions[off[0]])} m, no middle of a voxel of the "
            f"{size[0]} x {size[1]} x {size[2]} voxels in {_shown(extent)} m about {_shown(center)} m",
        )
    x, y, z = nearest.astype(np.int64).T
    stored = np.full(size[::-1], -1, np.int64)
    stored[z, y, x] = np.arange(count)
    if stored.min() < 0:
        k, j, i = np.unravel_index(int(stored.argmin()), stored.shape)
        datasets.fail(name, f"contradicts the grid: no position lies in voxel ({i}, {j}, {k}), and another has two")
    return stored


def _nearest(positions: FloatArray, size: Size, extent: Triple, center: ArrayLike) -> tuple[FloatArray, IntArray]:
    """Return the voxel (N, 3) nearest to each position of a grid about `center`, and which positions are off it."""
    place, about = np.zeros((len(positions), 3)), np.asarray(center)
    for axis in range(3):
        if size[axis] > 1:
            width = abs(extent[axis]) or math.nan
            place[:, axis] = ((positions[:, axis] - about[axis]) / width + 0.5) * size[axis] - 0.5
    nearest = np.rint(np.nan_to_num(place, nan=-1.0, posinf=-1.0, neginf=-1.0)).clip(-1, size)
    off = ~(np.abs(place - nearest) <= _OFF_GRID).all(1) | ((nearest < 0) | (nearest >= size)).any(1)
    return nearest, np.flatnonzero(off)


def _shown(values: ArrayLike) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in np.asarray(values)) + ")"


def _replaced(values: Any, axis: int, value: Any) -> Any:
    return (*values[:axis], value, *values[axis + 1 :])
