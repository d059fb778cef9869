"""The reduction of a system matrix: whitening of its rows, the singular value decomposition, and reduced frames."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.background import shows_noise
from mpi_fast.decomposition import Report, decompose, silent
from mpi_fast.errors import InputError
from mpi_fast.preprocessing import floor_deviations, row_noise

logger = logging.getLogger(__name__)
Complex = NDArray[np.complexfloating[Any, Any]]
RESIDUAL_FREEDOM = 8  # minimum number of directions outside the range of A for the noise estimate
SNR_CEILING_DB = 50.0  # upper limit of the SNR of a frame, because model errors and float32 also act as noise


@dataclass(frozen=True)
class ReducedFrames:
    """Frames after `Calibration.reduce`, in units of whitened signal.

    Attributes
    ----------
    y : (F, R) float32
        Reduced signals.
    noise : (F,) float32
        Noise standard deviation of each component of y.
    snr_db : (F,) float32
        ``20 log10(||signal|| / ||noise||)`` over the whitened rows, as estimated; at most `SNR_CEILING_DB`, and minus
        infinity if noise alone explains the frame.
    """

    y: NDArray[np.float32]
    noise: NDArray[np.float32]
    snr_db: NDArray[np.float32]


def row_weights(matrix: Complex, background: Complex | None) -> tuple[NDArray[np.float64], bool]:
    """Inverse noise standard deviation of each row, and whether it is known; otherwise all weights are equal.

    Parameters
    ----------
    matrix : (rows, N) complex
        Background-corrected matrix.
    background : (rows, B) complex, or None
        Background frames in the order of acquisition.
    """
    if background is not None and background.shape[1] >= 3 and shows_noise(background):
        return 1.0 / floor_deviations(row_noise(background)), True
    energy = [np.square(np.abs(row), dtype=np.float64).mean() for row in matrix]
    return np.full(len(matrix), 1.0 / max(float(np.sqrt(np.mean(energy))), np.finfo(np.float64).tiny)), False


def reduce_matrix(
    matrix: Complex,
    subtracted: Any = None,
    *,
    weights: NDArray[np.float64] | None = None,
    report: Report = silent,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.floating[Any]]]:
    """SVD of the whitened rows, real over imaginary: U (2M, R), S (R,), V (N, R); see `decomposition.decompose`.

    Rank: singular values above ``eps * max(2M, N) * S_1`` are kept, with R <= 2M - 8, so that a few directions are left
    to estimate the noise of frames.

    A measured matrix has noise of standard deviation one in each whitened entry, and more along directions of voxels
    that share background frames: ``tau^2 = 1 + ||W v||^2`` along v. Noise alone gives singular values up to
    ``tau (sqrt(2M) + sqrt(N))``. Those are dropped, too, and the others are shrunk to their part of the noise-free
    matrix (the optimal shrinkage of Gavish and Donoho, "Optimal shrinkage of singular values", IEEE Trans.
    Inf. Theory 2017, eq. 7).

    Parameters
    ----------
    matrix : (M, N) complex
    subtracted : (B, N) array or sparse array, optional
        W: the weight of each background frame in the correction of each voxel (`preprocessing.background_weights`), for
        a measured matrix, in units of its noise.
    weights : (M,), optional
        Weights that whiten the rows, unless they are already white.
    report : callable
        Called with the progress.

    Raises
    ------
    InputError
        If no singular value is left.
    """
    rows, voxels = 2 * len(matrix), matrix.shape[1]
    largest_noise = 0.0 if subtracted is None else float(np.sqrt(rows) + np.sqrt(voxels))
    u, s, v = decompose(matrix, weights, largest_noise, report)
    keep = (s > np.finfo(np.float64).eps * max(rows, voxels) * s[0]) & (np.arange(len(s)) < rows - RESIDUAL_FREEDOM)
    if subtracted is not None:
        tau = np.sqrt(1.0 + np.square(subtracted.astype(v.dtype) @ v, dtype=np.float64).sum(axis=0))
        ratio = s / tau
        keep &= ratio > largest_noise
        if not keep.any():
            raise InputError("system matrix: nothing in it rises above the noise of its background frames")
        logger.info("of %d singular values of %d rows %d are above their noise", len(s), len(matrix), keep.sum())
        u, ratio, tau, v = u[:, keep], ratio[keep], tau[keep], v[:, keep]
        return u, tau * np.sqrt((ratio**2 - rows - voxels) ** 2 - 4.0 * rows * voxels) / ratio, v
    return u[:, keep], s[keep], v[:, keep]


def projection_of(u: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.complex128]:
    """``y = Re(projection @ b)`` for U (2M, R), real over imaginary, and the weights (M,) of the rows."""
    projection = np.empty((u.shape[1], len(weights)), np.complex128)
    projection.real, projection.imag = u[: len(weights)].T, -u[len(weights) :].T
    projection *= weights
    return projection


def rows_of(
    y: NDArray[np.floating[Any]], projection: NDArray[np.complex128], weights: NDArray[np.float64]
) -> NDArray[np.complex128]:
    """``U y`` for y (..., R), as whitened rows (..., M): the adjoint of `projection_of`, which has W once too often."""
    return np.asarray((y @ projection).conj() / weights)
