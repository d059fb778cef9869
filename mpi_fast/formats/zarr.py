"""Zarr, a folder that xarray, Dask and others open: arrays with coordinates in mm and s.

``xarray.open_zarr("x.zarr").image.sel(time=0.5, method="nearest")`` is the image at half a second. If
the times are unknown, the coordinate is the frame number.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

import mpi_fast
from mpi_fast.atomic import check_target, is_store
from mpi_fast.atomic_folder import atomic_folder
from mpi_fast.formats.common import require_library, voxel_centres
from mpi_fast.formats.series import Series

CHUNK_BYTES = 1 << 22
VERSION: Literal[2] = 2  # version of the format that every library reads
UNITS = {"snr_db": "dB"}


def require(path: Path) -> None:
    """Require xarray and Zarr."""
    require_library(path, "zarr", "xarray", "zarr")


def files(path: Path) -> Sequence[Path]:
    """One folder."""
    return (path,)


def save(path: Path, series: Series) -> None:
    """Write a series, part by part; the folder appears when it is complete."""
    from zarr import consolidate_metadata

    frames = max(1, min(len(series), CHUNK_BYTES // (4 * math.prod(series.grid.shape))))
    encoding = {"chunks": (frames, *series.grid.shape)}
    with atomic_folder(check_target(path), is_store, "a Zarr store") as temporary:
        for start in range(0, len(series), frames):  # whole chunks, so that none is written twice
            part = slice(start, min(start + frames, len(series)))
            images = _dataset(series, part)
            if start:
                images.to_zarr(temporary, mode="a-", append_dim=_along(series), consolidated=False)
            else:
                chosen = {name: encoding for name in ("image", "std") if name in images}
                images.to_zarr(temporary, mode="w", encoding=chosen, consolidated=False, zarr_format=VERSION)
        consolidate_metadata(str(temporary), zarr_format=VERSION)


def _along(series: Series) -> str:
    return "frame" if series.times is None else "time"


def _dataset(series: Series, part: slice) -> Any:
    """Some of the images, with their values."""
    import xarray

    along, grid = _along(series), series.grid
    images = {"image": series.image} if series.std is None else {"image": series.image, "std": series.std}
    values: dict[str, Any] = {
        name: ((along, *grid.axes), np.asarray(array[part]), {"units": series.unit}) for name, array in images.items()
    }
    for name, known in series.columns().items():
        if name not in ("frame", "time"):
            values[name] = along, known[part], {"units": UNITS[name]} if name in UNITS else {}
    coordinates: dict[str, Any] = {"frame": (along, series.numbers[part])}
    if series.times is not None:
        coordinates["time"] = along, series.times[part], {"units": "s"}
    for axis in "xyz":
        places = voxel_centres(grid, axis)
        coordinates[axis] = (axis, places, {"units": "mm"}) if axis in grid.axes else ((), places[0], {"units": "mm"})
    made = {"made_by": f"mpi-fast {mpi_fast.__version__}", "provenance": json.dumps(dict(series.provenance))}
    return xarray.Dataset(values, coordinates, made)
