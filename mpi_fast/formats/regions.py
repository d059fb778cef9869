"""Regions of interest: parts of a grid with a name, given as boxes in mm or as a file of labels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.array_files import read_numpy
from mpi_fast.errors import FileFormatError, InputError
from mpi_fast.formats.common import affine, require_library, voxel_centres
from mpi_fast.mdf import Grid

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)"
BOX = "expected NAME=X0:X1,Y0:Y1,Z0:Z1 in mm, where an end that is left out is the grid's, such as vessel=-5:5,2:8"
LARGEST_LABEL = 1000
LARGEST_SHIFT = 0.25  # voxels, of labels from the voxels of the images


@dataclass(frozen=True, eq=False)
class Region:
    """Some voxels of a grid: ``mask`` is a bool array of the grid's shape."""

    name: str
    mask: NDArray[np.bool_]


def whole(grid: Grid) -> Region:
    """All voxels of a grid."""
    return Region("all", np.ones(grid.shape, bool))


def regions_of(texts: Sequence[str], grid: Grid) -> tuple[Region, ...]:
    """Regions from option texts, each a box or a file of labels.

    Parameters
    ----------
    texts : sequence of str
        ``vessel=-5:5,2:8`` contains all voxels whose centre lies in these ranges in mm, along x and y, and at any z. A
        text ending in .nii, .nii.gz, .npy or .npz is a file of labels on this grid; the axes of a NIfTI file may have
        any order and direction. Zero is no region, and every other label is a region. Its name is that of the file; if
        there are several, the label is appended.
    grid : Grid

    Raises
    ------
    InputError
        If a text is neither, two regions have the same name, or no voxel lies in a box.
    FileFormatError
        If the file is damaged, or its labels are not whole numbers on this grid, or in another place.
    """
    found: list[Region] = []
    for text in texts:
        path = label_file(text)
        found.extend([_box(text, grid)] if path is None else _labelled(path, grid))
    names = [region.name for region in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"--region: two regions are called {twice}")
    return tuple(found)


def label_file(text: str) -> Path | None:
    """The file of labels that an option text names; None for a box."""
    return Path(text) if text.lower().endswith((".nii", ".nii.gz", ".npy", ".npz")) else None


def require(texts: Sequence[str], outputs: Sequence[Path]) -> None:
    """Check regions as far as possible before the grid is known; raises as `regions_of`."""
    if texts and not any(path.suffix.lower() == ".csv" for path in outputs):
        raise InputError("--region: of tables: name an output that ends in .csv, too")
    for text in texts:
        path = label_file(text)
        if path is None:
            _parse(text)
        elif path.suffix.lower() not in (".npy", ".npz"):
            require_library(path, "nifti", "nibabel")


def _parse(text: str) -> tuple[str, dict[str, tuple[float, float]]]:
    """Name of a box, and its ranges along its axes."""
    name, _, rest = text.partition("=")
    parts = rest.split(",")
    if not name.strip() or not 1 <= len(parts) <= 3:
        raise InputError(f"--region {text}: {BOX}")
    ends: dict[str, tuple[float, float]] = {}
    for axis, part in zip("xyz", parts, strict=False):
        match = re.fullmatch(rf"({NUMBER})?:({NUMBER})?", part.strip(), re.ASCII)
        if not match:
            raise InputError(f"--region {text}: {BOX}")
        low, high = float(match[1] or -np.inf), float(match[2] or np.inf)
        if low >= high:
            raise InputError(f"--region {text}: the first end along {axis} is not below the second one")
        ends[axis] = low, high
    return name.strip(), ends


def _box(text: str, grid: Grid) -> Region:
    name, ends = _parse(text)
    mask = np.ones(grid.shape, bool)
    for axis, (low, high) in ends.items():
        if axis not in grid.axes:
            continue  # the position of a plane along its normal does not matter
        places = voxel_centres(grid, axis)
        inside = (low <= places) & (places <= high)
        if not inside.any():
            raise InputError(
                f"--region {text}: no voxel there: along {axis} their middles lie from {places[0]:.4g} to "
                f"{places[-1]:.4g} mm"
            )
        shape = [1] * mask.ndim
        shape[grid.axes.index(axis)] = -1
        mask &= inside.reshape(shape)
    return Region(name, mask)


def _labelled(path: Path, grid: Grid) -> list[Region]:
    labels = _labels(path, grid)
    if labels.shape != grid.shape:
        raise FileFormatError(
            f"{path}: labels {labels.shape}; {grid.shape} were expected, along {', '.join(grid.axes)}"
        )
    if labels.dtype.kind not in "biuf" or not np.isfinite(labels).all() or (labels % 1).any() or labels.min() < 0:
        raise FileFormatError(f"{path}: labels are other than whole numbers from 0")
    present = [int(label) for label in np.unique(labels) if label]
    if not present or max(present) > LARGEST_LABEL:
        raise FileFormatError(f"{path}: labels from 1 to {LARGEST_LABEL} were expected, not {present or 'only 0'}")
    name = path.name.split(".")[0]
    return [Region(name if len(present) == 1 else f"{name}-{label}", labels == label) for label in present]


def _labels(path: Path, grid: Grid) -> NDArray[Any]:
    """Labels [z, y, x] or [row, column]; a NIfTI file stores them as [x, y, z], or as its affine says."""
    if path.suffix.lower() in (".npy", ".npz"):
        return read_numpy(path, None)
    import nibabel
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    try:
        image = nibabel.nifti1.load(path)
        labels = np.asarray(image.dataobj)
        if labels.ndim > 3 and labels.shape[3:] == (1,) * (labels.ndim - 3):
            labels = labels.reshape(labels.shape[:3])
        if labels.ndim == 2:
            labels = labels[..., None]
        # If both codes are 0, the file does not say where its voxels are.
        stated = labels.ndim == 3 and bool(image.header["sform_code"] or image.header["qform_code"])
        place = affine(grid)
        if stated:
            # Programs may store axes in another order or direction.
            orientation = io_orientation(image.affine)
            place = image.affine @ inv_ornt_aff(orientation, labels.shape)
            labels = apply_orientation(labels, orientation)
    except Exception as error:  # nibabel and zlib may raise anything on damaged files
        raise FileFormatError(f"{path}: no NIfTI file, or damaged: {error}") from error
    if labels.shape != grid.size:
        raise FileFormatError(f"{path}: labels {labels.shape}; {grid.size} were expected, along x, y, z")
    _require_place(path, grid, place)
    return np.asarray(labels.T.reshape(grid.shape))


def _require_place(path: Path, grid: Grid, place: NDArray[np.float64]) -> None:
    """Raise FileFormatError unless a matrix (4, 4) in mm puts the corners of the grid where they are."""
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.asarray(grid.size) - 1), 1]
    off = np.abs(corners @ (np.linalg.inv(affine(grid)) @ place).T - corners).max(axis=1)
    if not (off < LARGEST_SHIFT).all():  # also for NaN
        worst = corners[int(np.argmax(off))]
        theirs, ours = (", ".join(f"{x:.4g}" for x in (matrix @ worst)[:3]) for matrix in (place, affine(grid)))
        raise FileFormatError(
            f"{path}: labels of another place: a corner lies at ({theirs}) mm; ({ours}) was expected, as in the images"
        )
