"""Total variation, and with it a nonconvex sparsity penalty (Zhu et al., IEEE Trans. Med. Imaging 2024), by ADMM.

Zhu et al., "Accurate concentration recovery for quantitative magnetic particle imaging reconstruction via nonconvex
regularization", observe that an L1 penalty pulls every concentration down, and replace it by the minimax concave
penalty (MC), which is flat above a knee, beside a total-variation term; solved by ADMM:

    min ||S V^T x - y||^2 / (2 sigma^2) + sparsity sum_i MC(x_i) + smoothness TV(x)    over x >= 0
    MC(x) = x - x^2 / (2 knee)  up to the knee,  knee / 2 above it

The two penalties and ADMM are theirs. Ours are: images of root-mean-square one, which make the parameters alike for all
frames; isotropic TV; the knee, the same for all noise levels; both weights tuned (they select them in two steps); the
penalty parameter rho; and the x-step. That one is ``(A^T A / sigma^2 + rho (I + D^T D)) x = r`` for another sigma in
every frame: with the generalised eigenvectors W of A^T A and I + D^T D it is diagonal for all of them.

Without MC it is TV regularisation, a convex problem, whose solution does not depend on how it is found: ADMM takes
hundreds of iterations where FISTA, with its steps limited by the largest singular value, takes thousands.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.guidance import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_count, check_positive

Array = NDArray[np.floating]


class TotalVariation(ReducedMethod):
    """Isotropic total variation of non-negative images, ``sum_ij sqrt(dx^2 + dy^2)`` with forward differences.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    smoothness : float
        Weight of TV, for images of root-mean-square one and signals in units of their noise.
    iterations : int
        Of ADMM.
    """

    def __init__(self, calibration: Calibration, smoothness: float = 1.0, iterations: int = 200) -> None:
        super().__init__(calibration)
        check_positive(smoothness=smoothness)
        check_count(iterations=iterations)
        self.smoothness, self.iterations = smoothness, iterations
        self._energies, self._vectors = _eigenvectors(calibration)

    @property
    def rho(self) -> float:
        """ADMM's penalty parameter, such that gradients of a fifth of the image's root-mean-square matter."""
        return 5 * self.smoothness

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        frames, grid, rho = len(likelihood.y), self.calibration.grid, self.rho
        variance = likelihood.noise[:, None] ** 2
        back = (likelihood.y * likelihood.singular_values / variance) @ likelihood.basis.T
        inverse = 1 / (self._energies / variance + rho)
        sparse = np.zeros((frames, *grid), dtype=np.float32)
        edges = gradient(sparse)
        sparse_dual, edges_dual = np.zeros_like(sparse), np.zeros_like(edges)
        for _ in range(self.iterations):
            target = (sparse - sparse_dual) + gradient_transposed(edges - edges_dual)
            right = back + rho * target.reshape(frames, -1)
            image = (((right @ self._vectors) * inverse) @ self._vectors.T).reshape(frames, *grid)
            sparse = self._voxels(image + sparse_dual)
            slopes = gradient(image)
            edges = _shortened(slopes + edges_dual, self.smoothness / rho)
            sparse_dual += image - sparse
            edges_dual += slopes - edges
        return sparse.reshape(frames, -1)

    def _voxels(self, values: Array) -> Array:
        """The proximal map of what is asked of single voxels."""
        return np.asarray(np.maximum(values, 0))


class Nonconvex(TotalVariation):
    """Minimax concave sparsity and total variation; see the module's head.

    Parameters
    ----------
    calibration, smoothness, iterations
        See `TotalVariation`.
    sparsity : float
        Weight of MC.
    knee : float
        Concentration, relative to the image's root-mean-square, above which sparsity costs nothing more.
    """

    def __init__(
        self,
        calibration: Calibration,
        sparsity: float = 3.0,
        smoothness: float = 1.0,
        knee: float = 2.0,
        iterations: int = 200,
    ) -> None:
        super().__init__(calibration, smoothness, iterations)
        check_positive(sparsity=sparsity, knee=knee)
        self.sparsity, self.knee = sparsity, knee

    @property
    def rho(self) -> float:
        """ADMM's penalty parameter: the proximal map of MC needs more than sparsity / knee."""
        return max(super().rho, 2 * self.sparsity / self.knee)

    def _voxels(self, values: Array) -> Array:
        return firm_threshold(values, self.sparsity / self.rho, self.knee)


def firm_threshold(values: Array, weight: float, knee: float) -> Array:
    """``argmin (x - values)^2 / 2 + weight MC(x)`` over x >= 0, for weight < knee."""
    lifted = (values - weight) * (knee / (knee - weight))
    return np.asarray(np.where(values > knee, values, np.maximum(lifted, 0)), dtype=values.dtype)


def gradient(image: Array) -> Array:
    """Forward differences of images (F, ny, nx) along y and x, (2, F, ny, nx), zero at the last row and column."""
    out = np.zeros((2, *image.shape), dtype=image.dtype)
    np.subtract(image[:, 1:], image[:, :-1], out=out[0, :, :-1])
    np.subtract(image[:, :, 1:], image[:, :, :-1], out=out[1, :, :, :-1])
    return out


def gradient_transposed(field: Array) -> Array:
    """The adjoint of `gradient`, (2, F, ny, nx) -> (F, ny, nx): minus the divergence."""
    out = np.zeros(field.shape[1:], dtype=field.dtype)
    out[:, 1:] += field[0, :, :-1]
    out[:, :-1] -= field[0, :, :-1]
    out[:, :, 1:] += field[1, :, :, :-1]
    out[:, :, :-1] -= field[1, :, :, :-1]
    return out


def _shortened(field: Array, weight: float) -> Array:
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
