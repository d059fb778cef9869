"""L1: sparse images that fit the signals, by FISTA.

    min ||S V^T x - y||^2 / (2 sigma^2) + strength sum(x)    over x >= 0

The solver uses accelerated proximal gradients (Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm
for linear inverse problems", SIAM J. Imaging Sci. 2009). It restarts each frame whenever the momentum points uphill
(O'Donoghue and Candes, "Adaptive restart for accelerated gradient schemes", Found. Comput. Math. 2015). An early stop
is often closer to the truth than convergence, so the number of iterations is tuned like the strength.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.likelihood import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_count, check_positive

Array = NDArray[np.float32]


class L1(ReducedMethod):
    """FISTA for non-negative images with an L1 penalty.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    strength : float
        Weight of the penalty, for images of root-mean-square one and signals in units of their noise.
    iterations : int
    """

    def __init__(self, calibration: Calibration, strength: float = 1.0, iterations: int = 200) -> None:
        super().__init__(calibration)
        check_positive(strength=strength)
        check_count(iterations=iterations)
        self.strength, self.iterations = strength, iterations

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        s, v = likelihood.singular_values, likelihood.basis
        # With steps of sigma^2 / S_0^2 only the penalty's weight depends on the noise.
        weight = self.strength * (likelihood.noise[:, None] / s[0]) ** 2
        back = likelihood.y * (s / s[0] ** 2)
        curvature = (s / s[0]) ** 2
        image = np.zeros((len(back), len(v)), dtype=np.float32)
        ahead, t = image, np.ones((len(back), 1), dtype=np.float32)
        for _ in range(self.iterations):
            moved = np.maximum(ahead + (back - (ahead @ v) * curvature) @ v.T - weight, 0)
            step = moved - image
            uphill = ((ahead - moved) * step).sum(axis=1, keepdims=True) > 0
            t[uphill] = 1
            t, previous = np.asarray((1 + np.sqrt(1 + 4 * t**2)) / 2), t
            ahead, image = moved + ((previous - 1) / t) * step, moved
        return image
