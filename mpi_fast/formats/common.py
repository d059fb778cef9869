"""Helpers of all formats: optional libraries, names of second files, positions in mm."""

from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.mdf import Grid
from mpi_fast.optional import optional


def require_library(path: Path, extra: str, *modules: str) -> None:
    """Raise MPIFastError that says what to install, unless all these modules can be imported."""
    for module in modules:
        needed = module.replace("_", "-")
        with optional(f"{path}: such files need {needed}: pip install 'mpi-fast[{extra}]'"):
            import_module(module)


def with_std(path: Path, suffix: str) -> Path:
    """File for the uncertainty, for formats with one array per file: ``x.nii.gz`` -> ``x.std.nii.gz``."""
    return path.with_name(f"{path.name[: -len(suffix)]}.std{path.name[-len(suffix) :]}")


def voxel_centres(grid: Grid, axis: str) -> NDArray[np.float64]:
    """Centres of the voxels along x, y or z, in mm."""
    number = "xyz".index(axis)
    count = grid.size[number]
    return np.asarray(1e3 * (grid.center[number] + ((np.arange(count) + 0.5) / count - 0.5) * grid.extent[number]))


def affine(grid: Grid) -> NDArray[np.float64]:
    """Matrix (4, 4) from voxel numbers (i, j, k) to the centres of voxels in mm."""
    # A slice of unknown thickness gets that of the voxel width, because readers invert the matrix.
    size = np.asarray(grid.extent) / grid.size
    size[~(size > 0)] = min(size[size > 0])
    matrix = np.diag([*size, 1e-3])
    matrix[:3, 3] = np.asarray(grid.center) - (np.asarray(grid.size) - 1) / 2 * size
    return np.asarray(1e3 * matrix)
