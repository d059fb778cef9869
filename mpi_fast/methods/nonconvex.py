"""ADMM with a nonconvex sparsity penalty and total variation (Zhu et al., IEEE Trans. Med. Imaging 2024).

Their paper, "Accurate concentration recovery for quantitative magnetic particle imaging reconstruction via nonconvex
regularization", observes that an L1 penalty pulls every concentration down, and replaces it by the minimax concave
penalty (MC), which is flat above a knee, beside a total-variation term; solved by ADMM:

    min ||S V^T x - y||^2 / (2 sigma^2) + sparsity sum_i MC(x_i) + smoothness TV(x)    over x >= 0
    MC(x) = x - x^2 / (2 knee)  up to the knee,  knee / 2 above it

The two penalties and ADMM are theirs. Ours are: images of root-mean-square one, which make the parameters alike for all
frames; isotropic TV; the knee, the same for all noise levels; both weights tuned (they select them in two steps); the
penalty parameter rho; and the x-step. That one is ``(A^T A / sigma^2 + rho (I + D^T D)) x = r`` for another sigma in
every frame: with the generalised eigenvectors W of A^T A and I + D^T D it is diagonal for all of them.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.guidance import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_positive
from mpi_fast.methods.variation import gradient, gradient_transposed

Array = NDArray[np.floating]


class Nonconvex(ReducedMethod):
    """Minimax concave sparsity and total variation by ADMM.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    sparsity, smoothness : float
        Weights of the penalties, for images of root-mean-square one and signals in units of their noise.
    knee : float
        Concentration, relative to the image's root-mean-square, above which sparsity costs nothing more.
    rho : float
        ADMM's, relative to what keeps its x-step well conditioned: of influence on speed, and, as the problem is not
        convex, on which minimum is found.
    iterations : int
        Of ADMM.
    """

    def __init__(
        self,
        calibration: Calibration,
        sparsity: float = 3.0,
        smoothness: float = 1.0,
        knee: float = 1.0,
        rho: float = 1.0,
        iterations: int = 200,
    ) -> None:
        super().__init__(calibration)
        check_positive(sparsity=sparsity, smoothness=smoothness, knee=knee, rho=rho)
        if iterations < 1:
            raise InputError(f"iterations {iterations}: expected a positive number")
        self.sparsity, self.smoothness, self.knee = sparsity, smoothness, knee
        self.rho, self.iterations = rho, iterations
        self._energies, self._vectors = _eigenvectors(calibration)

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        frames, grid = len(likelihood.y), self.calibration.grid
        variance = likelihood.noise[:, None] ** 2
        # Firm thresholding needs rho > sparsity / knee; beyond it, as stiff as the penalties themselves.
        rho = self.rho * (2 * self.sparsity / self.knee + self.smoothness)
        back = (likelihood.y * likelihood.singular_values / variance) @ likelihood.basis.T
        inverse = 1 / (self._energies / variance + rho)
        sparse = np.zeros((frames, *grid), dtype=np.float32)
        edges = gradient(sparse)
        sparse_dual, edges_dual = np.zeros_like(sparse), np.zeros_like(edges)
        for _ in range(self.iterations):
            target = (sparse - sparse_dual) + gradient_transposed(edges - edges_dual)
            right = back + rho * target.reshape(frames, -1)
            image = (((right @ self._vectors) * inverse) @ self._vectors.T).reshape(frames, *grid)
            sparse = firm_threshold(image + sparse_dual, self.sparsity / rho, self.knee)
            slopes = gradient(image)
            edges = _shrink(slopes + edges_dual, self.smoothness / rho)
            sparse_dual += image - sparse
            edges_dual += slopes - edges
        return sparse.reshape(frames, -1)


def firm_threshold(values: Array, weight: float, knee: float) -> Array:
    """``argmin (x - values)^2 / 2 + weight MC(x)`` over x >= 0, for weight < knee."""
    lifted = (values - weight) * (knee / (knee - weight))
    return np.asarray(np.where(values > knee, values, np.maximum(lifted, 0)), dtype=values.dtype)


def _shrink(field: Array, weight: float) -> Array:
    """Shorten the vectors of a field (2, ...) by weight."""
    length = np.sqrt((field**2).sum(axis=0))
    return np.asarray(field * np.maximum(1 - weight / np.maximum(length, 1e-12), 0), dtype=field.dtype)


def _eigenvectors(calibration: Calibration) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Solve ``A^T A w = e (I + D^T D) w``: eigenvalues (N,), vectors as columns (N, N), ``W^T (I + D^T D) W = I``."""
    voxels = calibration.num_voxels
    basis = np.eye(voxels).reshape(voxels, *calibration.grid)
    penalty = np.eye(voxels) + gradient_transposed(gradient(basis)).reshape(voxels, voxels)
    root = np.linalg.inv(np.linalg.cholesky(penalty))
    forward = (calibration.singular_values[:, None] * calibration.basis.T).astype(np.float64) @ root.T
    energies, vectors = np.linalg.eigh(forward.T @ forward)
    return np.maximum(energies, 0).astype(np.float32), (root.T @ vectors).astype(np.float32)
