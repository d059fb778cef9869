"""Concentration images and volumes to test and to train with: tumours, vessels, bars, dots, the OpenMPI phantoms, ...

A phantom is drawn with signed distance functions on a canvas finer than the voxel grid and averaged down, so that a
shape thinner than a voxel keeps its total concentration. Everything is vectorised over the images of a batch.
"""

from collections.abc import Sequence

import numpy as np

from mpi_fast.errors import InputError
from mpi_fast.phantoms import openmpi, planes, volumes, wide
from mpi_fast.phantoms.canvas import Array, Canvas, Family

__all__ = [
    "FAMILIES",
    "OPENMPI_FAMILIES",
    "OPENMPI_VOLUMES",
    "TRAINING_FAMILIES",
    "TRAINING_VOLUMES",
    "VOLUMES",
    "WIDE_FAMILIES",
    "Array",
    "Canvas",
    "Family",
    "generate",
]

TRAINING_FAMILIES: dict[str, Family] = {
    "tumours": planes.tumours,
    "vessels": planes.vessels,
    "bars": planes.bars,
    "dots": planes.dots,
    "letters": planes.letters,
    "regions": planes.regions,
    "fields": planes.fields,
}
WIDE_FAMILIES: dict[str, Family] = {
    "trees": wide.trees,
    "cells": wide.cells,
    "blobs": wide.blobs,
    "strands": wide.strands,
    "textures": wide.textures,
    "points": wide.points,
}
OPENMPI_FAMILIES: dict[str, Family] = {
    "shape": openmpi.openmpi_shape,
    "resolution": openmpi.openmpi_resolution,
    "concentration": openmpi.openmpi_concentration,
}
FAMILIES: dict[str, Family] = TRAINING_FAMILIES | WIDE_FAMILIES | OPENMPI_FAMILIES
# Families of volumes; a name has the same meaning as for planes, if both have it.
TRAINING_VOLUMES: dict[str, Family] = {
    "tumours": volumes.tumours,
    "vessels": wide.trees,
    "aneurysms": volumes.aneurysms,
    "boxes": volumes.boxes,
    "dots": volumes.dots,
    "fields": volumes.fields,
    "cells": wide.cells,
    "blobs": wide.blobs,
    "strands": wide.strands,
    "textures": wide.textures,
    "points": wide.points,
}
OPENMPI_VOLUMES: dict[str, Family] = {
    "shape": openmpi.shape_volume,
    "resolution": openmpi.resolution_volume,
    "concentration": openmpi.concentration_volume,
}
VOLUMES: dict[str, Family] = TRAINING_VOLUMES | OPENMPI_VOLUMES
BATCH = {2: 64, 3: 2}  # images drawn at once, by number of dimensions, so that the canvas arrays fit the cache


def generate(
    family: str | Sequence[str],
    count: int,
    grid: tuple[int, ...] = (19, 19),
    seed: int | np.random.Generator = 0,
    aspect: float | Sequence[float] = 1.0,
) -> Array:
    """Draw phantoms.

    Parameters
    ----------
    family : str or sequence of str
        Name(s) from ``FAMILIES``, or ``VOLUMES`` for volumes; several are used in turn: image i is of family
        ``i % len(family)``.
    count : int
        Number of images.
    grid : (ny, nx) or (nz, ny, nx)
        Number of voxels.
    seed : int or numpy Generator
        The same seed gives the same images.
    aspect : float or sequence of float
        Height over width of a voxel; for volumes depth and height over width, or one number for both.

    Returns
    -------
    (count, *grid) float32 in [0, 1]: concentration relative to the delta sample.

    Raises
    ------
    InputError
        For an unknown family, a negative count or an empty grid.
    """
    names = [family] if isinstance(family, str) else list(family)
    if len(grid) not in BATCH or min(grid) < 1:
        raise InputError(f"phantoms: grid {grid}: expected (ny, nx) or (nz, ny, nx)")
    families = FAMILIES if len(grid) == 2 else VOLUMES
    unknown = [name for name in names if name not in families]
    if unknown or not names:
        raise InputError(f"phantom family {unknown or names}: expected some of {', '.join(families)}")
    sides = np.asarray(aspect, dtype=np.float64)
    if count < 0 or not (sides > 0).all() or sides.size not in (1, len(grid) - 1):
        raise InputError(f"phantoms: count {count}, aspect {aspect} of voxels in {grid}: expected positive numbers")
    rng = np.random.default_rng(seed)
    canvas, batch = Canvas.of_grid(grid, aspect), BATCH[len(grid)]
    images = np.empty((count, *grid), dtype=np.float32)
    for index, name in enumerate(names):
        share = len(range(index, count, len(names)))
        for start in range(0, share, batch):
            size = min(batch, share - start)
            drawn = canvas.average(families[name](rng, canvas, size))
            images[index + start * len(names) :: len(names)][:size] = drawn
    return images
