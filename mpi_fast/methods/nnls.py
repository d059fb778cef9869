"""Non-negative least squares: the non-negative image that fits the signals best.

``min ||A x - y||^2 + mu ||x||^2`` subject to x >= 0, with A = S V^T and mu = strength sigma^2; see `nonnegative`.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.likelihood import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_positive
from mpi_fast.nonnegative import nnls

Array = NDArray[np.floating]


class NNLS(ReducedMethod):
    """Non-negative least squares with a quadratic penalty.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    strength : float
        mu in units of the noise variance, for images of root-mean-square one. A white prior has 1; plain NNLS without a
        prior has far less.
    """

    def __init__(self, calibration: Calibration, strength: float = 3.0) -> None:
        super().__init__(calibration)
        check_positive(strength=strength)
        self.strength = strength

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        forward = (likelihood.singular_values[:, None] * likelihood.basis.T).astype(np.float64)
        penalties = self.strength * likelihood.noise.astype(np.float64) ** 2
        signals = likelihood.y.astype(np.float64)
        return np.stack([nnls(forward, y, mu) for y, mu in zip(signals, penalties.tolist(), strict=True)])
