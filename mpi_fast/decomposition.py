"""The singular value decomposition of a whitened system matrix of any size, in float64: ``W A = U S V^T``.

The matrix has real over imaginary parts, 2M rows of N voxels. LAPACK decomposes small matrices directly, because
without noise their singular values may span fourteen decades, and it finds all of them. For a large matrix it would
need several float64 copies and ten times the time. Instead, the Gram matrix of the smaller side is computed in blocks.
Its eigenvectors above a threshold are the singular vectors of this side, and a product in blocks gives those of the
other side. Squaring loses singular values below about 1e-7 of the largest, and makes vectors of small ones less
orthogonal (by ``eps / s^2``), so singular values are cut at `FLOOR`. Frames contain no information in those directions:
at `reduction.SNR_CEILING_DB`, 50 dB, the noise in each of 12 000 rows is 3e-5 of the signals' norm, and no single
direction has more than a small part of an image.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError

Complex = NDArray[np.complexfloating[Any, Any]]
Float = NDArray[np.floating[Any]]
Report = Callable[[str, float | None], None]  # stage, and completed share of it from 0 to 1; None if unknown

SMALL = 1 << 22  # entries, 2M * N, up to which LAPACK is used directly: seconds, and 32 MiB in float64
FLOOR = 1e-5  # smallest singular value, relative to the largest
BLOCK_BYTES = 128 << 20  # of float64 numbers that are whitened at once


def silent(stage: str, share: float | None) -> None:
    """Ignore the progress."""


def decompose(
    matrix: Complex, weights: NDArray[np.float64] | None = None, least: float = 0.0, report: Report = silent
) -> tuple[NDArray[np.float64], NDArray[np.float64], Float]:
    """Decompose a matrix: U (2M, R) and S (R,), float64, V (N, R) float64 or, for large matrices, float32.

    Parameters
    ----------
    matrix : (M, N) complex
    weights : (M,), optional
        Weights of the rows.
    least : float
        Singular values up to this one are not needed and may be left out.
    report : callable
        Called with the progress.

    Raises
    ------
    InputError
        If all rows are zero, or if no singular value is above ``least``.
    """
    whitener = _Whitener(matrix, np.ones(len(matrix)) if weights is None else weights)
    if whitener.rows * whitener.voxels <= SMALL:
        u, s, vt = np.linalg.svd(whitener(), full_matrices=False)
        v: Float = vt.T
    elif whitener.rows <= whitener.voxels:
        u, s, v = _of_rows(whitener, least, report)
    else:
        u, s, v = _of_voxels(whitener, least, report)
    if not s.size or s[0] <= least:
        raise InputError(
            "system matrix: nothing in it rises above the noise of its background frames"
            if least
            else "system matrix: all selected rows are zero"
        )
    return u, s, v


class _Whitener:
    """Whitened parts of a matrix, real over imaginary."""

    def __init__(self, matrix: Complex, weights: NDArray[np.float64]) -> None:
        self._matrix, self._weights = matrix, weights[:, None]
        self.half, self.voxels = matrix.shape
        self.rows = 2 * self.half

    def __call__(self, rows: slice = slice(None), voxels: slice = slice(None)) -> NDArray[np.float64]:
        part, weights = self._matrix[rows, voxels], self._weights[rows]
        out = np.empty((2 * len(part), part.shape[1]))
        np.multiply(part.real, weights, out=out[: len(part)])
        np.multiply(part.imag, weights, out=out[len(part) :])
        return out


def _of_rows(
    whitener: _Whitener, least: float, report: Report
) -> tuple[NDArray[np.float64], NDArray[np.float64], Float]:
    """Decompose by the Gram matrix of the rows, if rows are fewer than voxels."""
    gram = np.zeros((whitener.rows, whitener.rows), order="F")
    for voxels in _parts(whitener.voxels, whitener.rows, "Gram matrix", report):
        _add_square(gram, whitener(voxels=voxels).T)
    s, u = _eigenvectors(gram, least, report)
    v = np.empty((whitener.voxels, len(s)), np.float32)
    for voxels in _parts(whitener.voxels, whitener.rows, "basis", report):
        v[voxels] = whitener(voxels=voxels).T @ u / s
    return u, s, v


def _of_voxels(
    whitener: _Whitener, least: float, report: Report
) -> tuple[NDArray[np.float64], NDArray[np.float64], Float]:
    """Decompose by the Gram matrix of the voxels, if voxels are fewer than rows."""
    gram = np.zeros((whitener.voxels, whitener.voxels), order="F")
    for rows in _parts(whitener.half, 2 * whitener.voxels, "Gram matrix", report):
        _add_square(gram, whitener(rows))
    s, v = _eigenvectors(gram, least, report)
    u = np.empty((whitener.rows, len(s)))
    for rows in _parts(whitener.half, 2 * whitener.voxels, "basis", report):
        both = whitener(rows) @ v / s
        u[rows], u[whitener.half :][rows] = np.split(both, 2)
    return u, s, v.astype(np.float32)


def _parts(count: int, size: int, stage: str, report: Report) -> Iterator[slice]:
    """Slices of ``count`` items of ``size`` float64 numbers each, as many as fit a block."""
    step = max(1, BLOCK_BYTES // (8 * size))
    for start in range(0, count, step):
        report(stage, start / count)
        yield slice(start, min(start + step, count))
    report(stage, 1.0)


def _add_square(gram: NDArray[np.float64], block: NDArray[np.float64]) -> None:
    """Add ``block^T block`` to the lower triangle, in place."""
    from scipy.linalg.blas import dsyrk

    # BLAS requires Fortran order; an array in C order is the transpose of an array in Fortran order.
    columns, transposed = (block, 1) if block.flags.f_contiguous else (block.T, 0)
    dsyrk(1.0, columns, beta=1.0, c=gram, trans=transposed, lower=1, overwrite_c=1)


def _eigenvectors(
    gram: NDArray[np.float64], least: float, report: Report
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Singular values in descending order, and their vectors as columns; ``gram`` is overwritten."""
    from scipy.linalg import eigh

    report("eigenvectors", None)
    largest = float(gram.diagonal().max())  # a lower bound of the largest eigenvalue
    if not largest > 0:
        return np.empty(0), np.empty((len(gram), 0))
    lowest = max(least**2, FLOOR**2 * largest)
    options: dict[str, Any] = {"lower": True, "overwrite_a": True, "check_finite": False, "driver": "evr"}
    squares, vectors = eigh(gram, subset_by_value=(lowest, np.inf), **options)
    s = np.sqrt(squares[::-1])
    keep = int((s > FLOOR * s[0]).sum()) if len(s) else 0
    report("eigenvectors", 1.0)
    # A copy, because a view would keep a matrix as large as the Gram matrix in memory.
    return s[:keep].copy(), np.ascontiguousarray(vectors[:, ::-1][:, :keep])
