"""FISTA with an L1 penalty, for sparse images, and with isotropic total variation, for images of few edges.

    min ||S V^T x - y||^2 / (2 sigma^2) + strength R(x)    over x >= 0,    R(x) = sum(x)  or  TV(x)

by accelerated proximal gradients (Beck and Teboulle, "A fast iterative shrinkage-thresholding algorithm for linear
inverse problems", SIAM J. Imaging Sci. 2009), restarted for each frame whenever its momentum points uphill (O'Donoghue
and Candes, "Adaptive restart for accelerated gradient schemes", Found. Comput. Math. 2015).
"""

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.guidance import Likelihood
from mpi_fast.methods import variation
from mpi_fast.methods.base import ReducedMethod, check_positive

Array = NDArray[np.float32]


class Fista(ReducedMethod):
    """Accelerated proximal gradients; `L1` and `TotalVariation` say what the penalty is.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    strength : float
        Of the penalty, for images of root-mean-square one and signals in units of their noise.
    iterations : int
        At most.
    tolerance : float
        Stop when no image of the batch changes by more, relative to itself.
    """

    def __init__(
        self, calibration: Calibration, strength: float = 1.0, iterations: int = 500, tolerance: float = 1e-4
    ) -> None:
        super().__init__(calibration)
        check_positive(strength=strength, tolerance=tolerance)
        if iterations < 1:
            raise InputError(f"iterations {iterations}: expected a positive number")
        self.strength, self.iterations, self.tolerance = strength, iterations, tolerance

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        self._begin()
        s, v = likelihood.singular_values, likelihood.basis
        # With steps of sigma^2 / S_0^2 only the penalty's weight depends on the noise.
        weight = self.strength * (likelihood.noise / s[0]) ** 2
        back = likelihood.y * (s / s[0] ** 2)
        curvature = (s / s[0]) ** 2
        image = np.zeros((len(back), len(v)), dtype=np.float32)
        ahead, t = image, np.ones((len(back), 1), dtype=np.float32)
        for _ in range(self.iterations):
            moved = self._proximal(ahead + (back - (ahead @ v) * curvature) @ v.T, weight)
            step = moved - image
            uphill = ((ahead - moved) * step).sum(axis=1, keepdims=True) > 0
            t[uphill] = 1
            t, previous = np.asarray((1 + np.sqrt(1 + 4 * t**2)) / 2), t
            ahead, image = moved + ((previous - 1) / t) * step, moved
            if (np.linalg.norm(step, axis=1) <= self.tolerance * np.linalg.norm(image, axis=1)).all():
                break
        return image

    def _begin(self) -> None:
        """Forget what the last batch left behind."""

    @abstractmethod
    def _proximal(self, images: Array, weight: Array) -> Array:
        """``argmin ||x - images||^2 / 2 + weight R(x)`` over x >= 0, for images (F, N) and weights (F,)."""


class L1(Fista):
    """FISTA with ``R(x) = sum(x)``."""

    def _proximal(self, images: Array, weight: Array) -> Array:
        return np.asarray(np.maximum(images - weight[:, None], 0))


class TotalVariation(Fista):
    """FISTA with isotropic total variation; its proximal map is iterated, from where it was left in the step before."""

    INNER = 10

    def _begin(self) -> None:
        self._dual: NDArray[np.floating] | None = None

    def _proximal(self, images: Array, weight: Array) -> Array:
        shaped = images.reshape(-1, *self.calibration.grid)
        denoised, self._dual = variation.denoise(shaped, weight, self.INNER, self._dual)
        return np.asarray(denoised.reshape(images.shape), dtype=np.float32)
