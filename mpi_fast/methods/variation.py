"""Total variation, alone or with a nonconvex sparsity penalty (Zhu et al., IEEE Trans. Med. Imaging 2024), by ADMM.

Zhu et al., "Accurate concentration recovery for quantitative magnetic particle imaging reconstruction via nonconvex
regularization", observe that an L1 penalty reduces every concentration. They replace it by the minimax concave penalty
(MC), which is constant above a knee, add a total-variation term, and solve the problem by ADMM:

    min ||S V^T x - y||^2 / (2 sigma^2) + sparsity sum_i MC(x_i) + smoothness TV(x)    over x >= 0
    MC(x) = x - x^2 / (2 knee)  up to the knee,  knee / 2 above it

The two penalties and ADMM are theirs. We added: images of root-mean-square one, so that the same parameters suit all
frames; isotropic TV; the same knee for all noise levels; tuning of both weights (they select them in two steps); the
penalty parameter rho; and the solution of the x-step for a different sigma in every frame. The x-step is
``(A^T A / sigma^2 + rho K) x = A^T y / sigma^2 + rho t`` with A = S V^T and ``K = I + D^T D``. K is diagonal in the
cosine basis of the DCT-II. With the eigenvectors of ``A K^-1 A^T = P diag(e) P^T`` and ``U = K^-1 A^T P``, the Woodbury
identity gives

    x = K^-1 t + U (P^T y - U^T t) / (e + rho sigma^2)

so a volume of N voxels needs memory for N R numbers instead of N^2.

Without MC this is TV regularisation, a convex problem, whose solution does not depend on the solver. ADMM takes
hundreds of iterations; FISTA, with steps limited by the largest singular value, takes thousands.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from mpi_fast.calibration import Calibration
from mpi_fast.likelihood import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_count, check_positive, once_per_calibration

Array = NDArray[np.floating]


class TotalVariation(ReducedMethod):
    """Isotropic total variation of non-negative images, ``sum sqrt(dx^2 + dy^2)`` with forward differences.

    For volumes, ``sum sqrt(dx^2 + dy^2 + dz^2)``. The differences are not divided by the distance of the voxels.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    smoothness : float
        Weight of TV, for images of root-mean-square one and signals in units of their noise.
    iterations : int
        Number of ADMM iterations.
    """

    def __init__(self, calibration: Calibration, smoothness: float = 1.0, iterations: int = 200) -> None:
        super().__init__(calibration)
        check_positive(smoothness=smoothness)
        check_count(iterations=iterations)
        self.smoothness, self.iterations = smoothness, iterations
        self._rows = penalised_rows(calibration)

    @property
    def rho(self) -> float:
        """ADMM's penalty parameter, chosen for gradients of a fifth of the image's root-mean-square."""
        return 5 * self.smoothness

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        frames, grid, rho, rows = len(likelihood.y), self.calibration.grid, self.rho, self._rows
        signals = likelihood.y @ rows.rotation
        gain = 1 / (rows.energies + rho * likelihood.noise[:, None] ** 2)
        sparse = np.zeros((frames, *grid), dtype=np.float32)
        edges = gradient(sparse)
        sparse_dual, edges_dual = np.zeros_like(sparse), np.zeros_like(edges)
        for _ in range(self.iterations):
            target = (sparse - sparse_dual) + gradient_transposed(edges - edges_dual)
            innovation = signals - target.reshape(frames, -1) @ rows.vectors
            image = rows.penalty.solve(target) + ((innovation * gain) @ rows.vectors.T).reshape(target.shape)
            sparse = self._voxels(image + sparse_dual)
            slopes = gradient(image)
            edges = _shortened(slopes + edges_dual, self.smoothness / rho)
            sparse_dual += image - sparse
            edges_dual += slopes - edges
        return sparse.reshape(frames, -1)

    def _voxels(self, values: Array) -> Array:
        """The proximal map of the penalties on single voxels."""
        return np.asarray(np.maximum(values, 0))


class Nonconvex(TotalVariation):
    """Minimax concave sparsity and total variation; see the head of this module.

    Parameters
    ----------
    calibration, smoothness, iterations
        See `TotalVariation`.
    sparsity : float
        Weight of MC.
    knee : float
        Concentration, relative to the image's root-mean-square, above which the sparsity penalty is constant.
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
        """ADMM's penalty parameter; the proximal map of MC requires more than sparsity / knee."""
        return max(super().rho, 2 * self.sparsity / self.knee)

    def _voxels(self, values: Array) -> Array:
        return firm_threshold(values, self.sparsity / self.rho, self.knee)


def firm_threshold(values: Array, weight: float, knee: float) -> Array:
    """``argmin (x - values)^2 / 2 + weight MC(x)`` over x >= 0, for weight < knee."""
    lifted = (values - weight) * (knee / (knee - weight))
    return np.asarray(np.where(values > knee, values, np.maximum(lifted, 0)), dtype=values.dtype)


def gradient(images: Array) -> Array:
    """Forward differences of images (F, *grid) along each axis of the grid, (axes, F, *grid), zero at the far edges."""
    out = np.zeros((images.ndim - 1, *images.shape), dtype=images.dtype)
    for slopes, (near, far) in zip(out, _neighbours(images.ndim), strict=True):
        np.subtract(images[far], images[near], out=slopes[near])
    return out


def gradient_transposed(field: Array) -> Array:
    """The adjoint of `gradient`, (axes, F, *grid) -> (F, *grid): minus the divergence."""
    out = np.zeros(field.shape[1:], dtype=field.dtype)
    for slopes, (near, far) in zip(field, _neighbours(out.ndim), strict=True):
        out[far] += slopes[near]
        out[near] -= slopes[near]
    return out


def _neighbours(dimensions: int) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...]]]:
    """Slices of images (F, *grid) along each axis of the grid: all voxels except the last, and all except the first."""
    for axis in range(1, dimensions):
        before = (slice(None),) * axis
        yield (*before, slice(None, -1)), (*before, slice(1, None))


def _shortened(field: Array, weight: float) -> Array:
    """Shorten the vectors of a field (axes, ...) by weight."""
    length = np.sqrt((field**2).sum(axis=0))
    return np.asarray(field * np.maximum(1 - weight / np.maximum(length, 1e-12), 0), dtype=field.dtype)


class Smoothing:
    """``K = I + D^T D`` of a grid, with D = `gradient`: its eigenvectors are products of cosines along the axes."""

    def __init__(self, grid: tuple[int, ...]) -> None:
        eigenvalues = np.ones(())
        for count in grid:
            eigenvalues = eigenvalues[..., None] + 2 * (1 - np.cos(np.pi * np.arange(count) / count))
        self._inverse = 1 / eigenvalues

    def solve(self, images: Array) -> Array:
        """``K^-1`` of images (F, *grid), in their precision."""
        axes = range(1, images.ndim)
        spectra = dctn(images, axes=axes, norm="ortho") * self._inverse.astype(images.dtype)
        return np.asarray(idctn(spectra, axes=axes, norm="ortho"))


@dataclass(frozen=True)
class PenalisedRows:
    """Arrays of a calibration for the x-step; see the head of this module.

    Attributes
    ----------
    penalty : Smoothing
        K.
    vectors : (N, R) float32
        U.
    rotation : (R, R) float32
        P.
    energies : (R,) float32
        e.
    """

    penalty: Smoothing
    vectors: NDArray[np.float32]
    rotation: NDArray[np.float32]
    energies: NDArray[np.float32]


@once_per_calibration
def penalised_rows(calibration: Calibration) -> PenalisedRows:
    """Solve for the eigenvectors of ``A K^-1 A^T``."""
    penalty = Smoothing(calibration.grid)
    rows = calibration.singular_values.astype(np.float64)[:, None] * calibration.basis.T
    smooth = penalty.solve(rows.reshape(-1, *calibration.grid)).reshape(rows.shape)
    energies, rotation = np.linalg.eigh(rows @ smooth.T)
    vectors = (smooth.T @ rotation).astype(np.float32)
    return PenalisedRows(penalty, vectors, rotation.astype(np.float32), np.maximum(energies, 0).astype(np.float32))
