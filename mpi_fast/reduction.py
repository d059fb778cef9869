"""The reduction of a system matrix: whitening its rows, and the singular value decomposition."""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.preprocessing import row_noise

RESIDUAL_FREEDOM = 8  # directions outside the range of A, at least, from which the noise level is estimated


def row_weights(background: NDArray[np.complexfloating] | None, rows: int) -> tuple[NDArray[np.float64], bool]:
    """One over the noise standard deviation of each row, and whether it is known; ones where it is not.

    Parameters
    ----------
    background : (rows, B) complex, or None
        Background frames in the order of acquisition.
    rows : int
        Their number, where there are none.
    """
    if background is None or background.shape[1] < 3:
        return np.ones(rows), False
    deviation = row_noise(background)
    if not deviation.any():
        return np.ones(rows), False
    # A few frames may agree by accident, and a row of infinite weight would be the only one that counts.
    floor = 0.1 * np.median(deviation[deviation > 0])
    return 1.0 / np.maximum(deviation, floor), True


def reduce_matrix(
    whitened: NDArray[np.complexfloating], noisy: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """SVD of the whitened rows, real over imaginary: U (2M, R), S (R,), V (N, R), float64.

    Rank rule: singular values above ``eps * max(2M, N) * S_1`` stay, and a few directions are always left for the noise
    to show itself: R <= 2M - 8. A matrix that was measured carries noise of standard deviation one in each whitened
    entry, which alone makes singular values up to ``sqrt(2M) + sqrt(N)``; those are dropped too, and the others shrunk
    to what they explain of the noise-free matrix (the optimal shrinkage of Gavish and Donoho, "Optimal shrinkage of
    singular values", IEEE Trans. Inf. Theory 2017, eq. 7).
    """
    stacked = np.concatenate([whitened.real, whitened.imag]).astype(np.float64)
    u, s, vt = np.linalg.svd(stacked, full_matrices=False)
    rows, voxels = stacked.shape
    if s[0] == 0:
        raise InputError("system matrix: all selected rows are zero")
    keep = (s > np.finfo(np.float64).eps * max(rows, voxels) * s[0]) & (np.arange(len(s)) < rows - RESIDUAL_FREEDOM)
    if noisy:
        keep &= s > np.sqrt(rows) + np.sqrt(voxels)
        if not keep.any():
            raise InputError("system matrix: nothing in it rises above the noise of its background frames")
        s = np.sqrt(np.maximum((s**2 - rows - voxels) ** 2 - 4.0 * rows * voxels, 0.0)) / s
    return u[:, keep], s[keep], vt[keep].T
