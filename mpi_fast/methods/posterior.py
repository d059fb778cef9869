"""The posterior network: the scanner inside it, one evaluation for image and uncertainty; see `training.posterior`.

It is to take the place of the score network and of all that is done with it, and it knows no grid. Until it is better
on every frame of the comparison, it stands here, to be compared.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.methods.base import BATCH, Estimate, reduced_frames
from mpi_fast.methods.learned import LearnedModel


class Posterior:
    """The network, once per frame.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner, on any grid.
    model : str or Path
        A file written by ``python -m mpi_fast.export.learned``, or ``default``.
    threads : int, optional
        Threads that the network may use; default all.

    Raises
    ------
    ModelError
        As `LearnedModel`.
    """

    def __init__(self, calibration: Calibration, model: str | Path = "default", threads: int | None = None) -> None:
        self.calibration = calibration
        self._model = LearnedModel("posterior", model, calibration, threads)
        basis = calibration.basis.reshape(1, *calibration.grid, calibration.rank)
        self._scanner = {"singular_values": calibration.singular_values, "basis": basis}

    def __call__(self, signals: NDArray[Any]) -> Estimate:
        """Reconstruct signals, as `Calibration.rows` takes them."""
        reduced = reduced_frames(self.calibration, signals)
        both = [np.empty((0, 2, *self.calibration.grid), dtype=np.float32)]
        for start in range(0, len(reduced.y), BATCH):
            part = slice(start, start + BATCH)
            both.append(self._model(y=reduced.y[part], noise=reduced.noise[part], **self._scanner))
        image, std = np.concatenate(both).swapaxes(0, 1)
        return Estimate(image, std)
