"""Series of random images of a plane and of a volume, for tests of output formats."""

import numpy as np

from mpi_fast.formats import Series
from mpi_fast.mdf import Grid
from mpi_fast.reconstruction import Reconstruction

PLANE = Grid.regular((3, 4), (0.03, 0.06), (0.001, 0.002, 0.003))
VOLUME = Grid.regular((2, 3, 4), (0.02, 0.03, 0.06), (0.001, 0.002, 0.003))
PERIOD = 0.02154


def images(grid, frames=5, seed=0):
    rng = np.random.default_rng(seed)
    image, std = rng.random((2, frames, *grid.shape), np.float32)
    snr, floor = rng.random((2, frames), np.float32)
    misfit, flags = rng.random((frames, 3), np.float32), np.arange(frames).astype(np.uint8)
    return Reconstruction(image, std, snr, floor, 1.0, misfit, flags)


def series(grid=PLANE, frames=5):
    frame = 10 + np.arange(frames)
    return Series.of(images(grid, frames), grid, provenance={"seed": 3}, frame=frame, time=frame * PERIOD)


def names(folder):
    return sorted(path.name for path in folder.iterdir())
