"""Non-negative least squares: the image that fits the signals best among those without negative concentrations.

``min ||A x - y||^2 + mu ||x||^2`` subject to x >= 0, with A = S V^T and mu = strength sigma^2. Its conditions of
optimality (Lawson and Hanson, "Solving least squares problems", 1974, chapter 23) say that ``x = max(A^T w, 0)`` for
the one w that minimises

    d(w) = ||max(A^T w, 0)||^2 / 2 + mu ||w||^2 / 2 - <y, w>

without any constraint: convex, piecewise quadratic, and of R dimensions only. Newton's method with a line search ends
after some five to twenty steps, when the set of positive voxels no longer changes: with the exact solution.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.guidance import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_positive

Array = NDArray[np.floating]
STEPS, HALVINGS = 100, 30


class NNLS(ReducedMethod):
    """Non-negative least squares with a quadratic penalty.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    strength : float
        mu in units of the noise variance, for images of root-mean-square one: 1 for a white prior, and for what is
        commonly called NNLS, which has none, far less.
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


def nnls(forward: Array, y: Array, mu: float) -> Array:
    """Solve for one frame: forward (R, N), y (R,) -> (N,); see the module's head."""

    def dual(w: Array) -> float:
        return float((np.maximum(w @ forward, 0.0) ** 2).sum() / 2 + mu * (w @ w) / 2 - y @ w)

    identity = np.eye(len(forward))
    w, positive = np.zeros_like(y), np.ones(forward.shape[1], dtype=bool)
    for _ in range(STEPS):
        part = forward[:, positive]
        newton = np.linalg.solve(part @ part.T + mu * identity, y)
        if ((newton @ forward > 0) == positive).all():
            w = newton
            break
        lengths = 0.5 ** np.arange(HALVINGS)
        value = dual(w)
        w = next((at for at in (w + length * (newton - w) for length in lengths) if dual(at) < value), newton)
        positive = w @ forward > 0
    return np.maximum(w @ forward, 0.0)
