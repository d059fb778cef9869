"""A simulated scanner with a circulating bolus of tracer, as a source of live frames."""

import threading
import time
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import MPIFastError
from mpi_fast.experiment import Receiver, acquisition_of, measure_matrix
from mpi_fast.live.source import Clock, Incoming
from mpi_fast.simulation import Scanner

FRAMES = 256  # frames of one round of the bolus
EMPTY = 16  # frames of the empty scanner before the first round
SNR_DB = 25.0
VESSEL, WIDTH, LENGTH = 0.6, 0.16, 0.35  # relative to the grid: radius of the path, half-widths of the bolus


class SimulatedSource:
    """Simulated frames at a given rate (1/s), the same in every round of the bolus.

    Parameters
    ----------
    grid : (ny, nx) or (nz, ny, nx)
    rate : float
    """

    def __init__(self, grid: tuple[int, ...] = (19, 19), rate: float = 100.0) -> None:
        scanner = _scanner(grid)
        rng = np.random.default_rng(0)
        matrix = measure_matrix(scanner, 25.0, rng)
        self.calibration, self.acquisition, self.rate = matrix.calibrate(), acquisition_of(scanner), rate
        receiver = Receiver(matrix, self.calibration.selection, SNR_DB, rng, feed_through=True, steady=True)
        images = bolus(grid, FRAMES)
        selection = self.calibration.selection
        rounds = [receiver.frames(images[start : start + 16])[:, selection] for start in range(0, FRAMES, 16)]
        self._rows, self._empty = np.concatenate(rounds), receiver.background(EMPTY)[:, selection]
        self.name = f"a simulated scanner, {rate:g} frames/s"

    def frames(self, stopped: threading.Event) -> Iterator[Incoming | MPIFastError]:
        """See `Source`."""
        clock, number = Clock(self.rate, stopped), 0
        while clock.reached(number):
            empty = number < EMPTY
            rows = self._empty[number] if empty else self._rows[(number - EMPTY) % FRAMES]
            yield Incoming(rows, number, time.time(), empty)
            number += 1


def bolus(grid: tuple[int, ...], frames: int) -> NDArray[np.float32]:
    """Images (frames, *grid), at most 1, of a bolus that moves once round a circle and is diluted on its way."""
    axes = np.meshgrid(*(np.linspace(-1, 1, count) for count in grid), indexing="ij")
    z, y, x = ([np.zeros(grid)] * (3 - len(grid)) + list(axes))[-3:]
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    turns = np.linspace(0, 2 * np.pi, frames, endpoint=False)
    images = np.empty((frames, *grid), np.float32)
    for index, turn in enumerate(turns):
        ahead = (angle - turn + np.pi) % (2 * np.pi) - np.pi
        height = 0.4 * np.sin(turn) if len(grid) == 3 else 0.0
        across = np.square(radius - VESSEL) + np.square(z - height)
        strength = 0.6 + 0.4 * np.cos(turn)
        images[index] = strength * np.exp(-across / (2 * WIDTH**2) - np.square(VESSEL * ahead) / (2 * LENGTH**2))
    return images


def _scanner(grid: tuple[int, ...]) -> Scanner:
    """The default scanner with its field of view divided into this grid."""
    make = Scanner if len(grid) == 2 else Scanner.volume
    extent = make().field_of_view
    return make(grid=grid, voxel_size=tuple(size / count for size, count in zip(extent, grid, strict=True)))
