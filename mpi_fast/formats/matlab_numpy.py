"""NumPy and MATLAB files with named arrays.

``.npz`` and ``.mat`` contain ``image`` and ``std`` (F, ny, nx) or (F, nz, ny, nx), values for each image, such as
``snr_db`` and ``time``, and values for all images: ``axes``, ``voxel_size`` and ``center`` in m along these, ``unit``,
and ``provenance`` as JSON. ``.npy`` contains only the images; a second file contains their uncertainty.
"""

import json
import math
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError
from mpi_fast.formats.common import with_std
from mpi_fast.formats.series import Images, Series

LARGEST_MAT = 2**31  # bytes of a variable in MATLAB's version 5, which SciPy writes


def require(path: Path) -> None:
    """No optional library is needed."""


def files(path: Path) -> Sequence[Path]:
    """One file, and for ``.npy`` a second one for the uncertainty."""
    return (path, with_std(path, ".npy")) if path.suffix.lower() == ".npy" else (path,)


def save(path: Path, series: Series) -> None:
    """Write a series.

    Raises
    ------
    InputError
        If the series is larger than MATLAB's format allows.
    """
    {".npy": _save_npy, ".npz": _save_npz, ".mat": _save_mat}[path.suffix.lower()](path, series)


def _save_npy(path: Path, series: Series) -> None:
    with ExitStack() as stack:
        for target, images in zip(files(path), (series.image, series.std), strict=True):
            if images is not None:
                with stack.enter_context(atomic_path(target)).open("wb") as file:
                    _write(file, images, series)


def _save_npz(path: Path, series: Series) -> None:
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, images in (("image", series.image), ("std", series.std)):
            if images is not None:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    _write(file, images, series)
        for name, values in _beside(series).items():
            with archive.open(f"{name}.npy", "w") as file:
                npy.write_array(file, np.asarray(values), allow_pickle=False)


def _write(file: IO[bytes], images: Images, series: Series) -> None:
    """Write an array in NumPy's format, part by part."""
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(images.shape)}
    npy.write_array_header_1_0(file, header)
    for part in series.chunks():
        file.write(np.ascontiguousarray(images[part], "<f4").tobytes())


def _save_mat(path: Path, series: Series) -> None:
    from scipy.io import savemat

    if 4 * math.prod(series.image.shape) >= LARGEST_MAT:
        raise InputError(f"{path}: variables of MATLAB's version 5 hold less than 2 GiB: name an .npz or .mdf")
    everything = slice(0, len(series))
    images = {"image": np.asarray(series.image[everything])}
    if series.std is not None:
        images["std"] = np.asarray(series.std[everything])
    with atomic_path(path) as temporary:
        savemat(temporary, {**images, **_beside(series)})


def _beside(series: Series) -> dict[str, Any]:
    """The values that are written beside the images."""
    return {
        **series.found,
        "axes": series.grid.axes,
        "voxel_size": np.array(series.grid.voxel_size),
        "center": np.array([series.grid.center["xyz".index(axis)] for axis in series.grid.axes]),
        "unit": series.unit,
        "provenance": json.dumps(dict(series.provenance)),
    }
