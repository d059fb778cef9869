"""DERnet: one pass of a network from signals to image (Peng et al. 2023).

`training.dernet_network` describes the differences from the paper.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.likelihood import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_positive, parts
from mpi_fast.methods.learned_model import LearnedModel


class Dernet(ReducedMethod):
    """One evaluation of the network per frame.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    noise : float
        Noise level passed to the network, relative to the estimate.
    model : str or Path
        File written by ``python -m mpi_fast.export.learned``, or ``default``.
    threads : int, optional
        Threads of the network; by default all.

    Raises
    ------
    InputError
        For a noise level that is not positive.
    ModelError, MismatchError
        As `LearnedModel`.
    """

    def __init__(
        self,
        calibration: Calibration,
        noise: float = 1.0,
        model: str | Path = "default",
        threads: int | None = None,
    ) -> None:
        super().__init__(calibration)
        check_positive(noise=noise)
        self.noise = noise
        self._model = LearnedModel("dernet", model, calibration, threads)

    def solve(self, likelihood: Likelihood) -> NDArray[np.float32]:
        """Images (F, N)."""
        scanner = {"singular_values": likelihood.singular_values, "basis": likelihood.basis}
        images = [self._model(y=part.y, noise=self.noise * part.noise, **scanner) for part in parts(likelihood)]
        return np.asarray(np.maximum(np.concatenate(images), 0))
