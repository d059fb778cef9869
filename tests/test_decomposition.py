"""The decomposition of large matrices agrees with that of small ones, and needs little memory beside the matrix."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_fast import decomposition
from mpi_fast.decomposition import FLOOR, decompose
from mpi_fast.errors import InputError
from mpi_fast.preprocessing import background_weights
from mpi_fast.reduction import reduce_matrix


def graded(rows, voxels, decades, seed=0):
    """A complex matrix whose singular values fall by this number of decades."""
    rng = np.random.default_rng(seed)
    u, _, vt = np.linalg.svd(rng.standard_normal((2 * rows, voxels)), full_matrices=False)
    stacked = u * np.logspace(0, -decades, len(vt)) @ vt
    return stacked[:rows] + 1j * stacked[rows:]


@pytest.fixture
def in_blocks(monkeypatch):
    """Use the algorithm for large matrices for small ones, some rows or voxels at a time."""
    monkeypatch.setattr(decomposition, "SMALL", 0)
    monkeypatch.setattr(decomposition, "BLOCK_BYTES", 8 * 80 * 7)


def both(monkeypatch, *arguments):
    """The decompositions of a matrix by the algorithms for small and for large ones."""
    found = []
    for small in (1 << 30, 0):
        monkeypatch.setattr(decomposition, "SMALL", small)
        monkeypatch.setattr(decomposition, "BLOCK_BYTES", 5000)
        found.append(decompose(*arguments))
    return found


@settings(max_examples=40)
@given(rows=st.integers(2, 40), voxels=st.integers(1, 90), decades=st.floats(0, 12), seed=st.integers(0, 99))
def test_the_gram_matrix_says_the_same_as_lapack(rows, voxels, decades, seed):
    matrix = graded(rows, voxels, decades, seed)
    weights = np.random.default_rng(seed).uniform(0.5, 2, rows)
    with pytest.MonkeyPatch.context() as patch:
        (_, exact, v), (u, s, basis) = both(patch, matrix, weights)
    kept = exact > 1.01 * FLOOR * exact[0]
    assert kept.sum() <= len(s) <= (exact > 0.99 * FLOOR * exact[0]).sum()
    np.testing.assert_allclose(s, exact[: len(s)], rtol=1e-5)
    np.testing.assert_allclose(u.T @ u, np.eye(len(s)), atol=1e-5)
    np.testing.assert_allclose(basis.T @ basis, np.eye(len(s)), atol=1e-5)
    # Vectors are not unique if singular values are equal, but the product of the factors is.
    stacked = np.concatenate([matrix.real, matrix.imag]) * np.tile(weights, 2)[:, None]
    np.testing.assert_allclose(u * s @ basis.T, stacked, atol=2e-5 * exact[0])
    np.testing.assert_allclose(basis.T @ v[:, : len(s)] @ (v[:, : len(s)].T @ basis), np.eye(len(s)), atol=0.05)


@pytest.mark.parametrize("shape", [(40, 300), (300, 40)])
def test_a_measured_matrix_is_reduced_alike(monkeypatch, shape):
    """Truncation and shrinkage of a noisy matrix are the same."""
    rng = np.random.default_rng(1)
    rows, voxels = shape
    order = np.arange(voxels), np.arange(voxels, voxels + 6)
    noisy = 3e3 * graded(*shape, 3) + rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    found = []
    for small in (1 << 30, 0):
        monkeypatch.setattr(decomposition, "SMALL", small)
        found.append(reduce_matrix(noisy, background_weights(*order)))
    (u, s, v), (other_u, other_s, other_v) = found
    assert 5 < len(s) == len(other_s) < min(2 * rows, voxels) - 8
    np.testing.assert_allclose(other_s, s, rtol=1e-5)  # V is in single precision
    np.testing.assert_allclose(other_u * other_s @ other_v.T, u * s @ v.T, atol=1e-6 * s[0])


def test_nothing_is_not_reduced(in_blocks):
    with pytest.raises(InputError, match="all selected rows are zero"):
        decompose(np.zeros((20, 70), np.complex64))
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((40, 70)) + 1j * rng.standard_normal((40, 70))
    with pytest.raises(InputError, match="nothing in it rises above the noise"):
        reduce_matrix(noise / 1.1, np.zeros((1, 70)))


@pytest.mark.parametrize("shape", [(40, 200), (200, 40)])
def test_progress_is_told(in_blocks, shape):
    told = []
    decompose(graded(*shape, 2), report=lambda stage, share: told.append((stage, share)))
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["Gram matrix", "eigenvectors", "basis"]
    shares = [share for stage, share in told if stage == "Gram matrix"]
    assert shares == sorted(shares)
    assert len(shares) > 3
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_memory_beside_a_large_matrix(monkeypatch):
    """Memory is needed for Gram matrix, eigenvectors and factors, but not for a copy of the matrix."""
    monkeypatch.setattr(decomposition, "SMALL", 0)
    monkeypatch.setattr(decomposition, "BLOCK_BYTES", 1 << 20)
    rng = np.random.default_rng(0)
    rows, voxels, rank = 200, 20_000, 40
    left, right = rng.standard_normal((rows, rank)) * (1 + 1j), rng.standard_normal((rank, voxels))
    matrix = (left @ right).astype(np.complex64)
    tracemalloc.start()
    u, _, v = decompose(matrix)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    gram = 8 * (2 * rows) ** 2
    assert v.dtype == np.float32
    assert peak < 1.2 * (2 * gram + u.nbytes + v.nbytes) + 3 * (1 << 20)
    assert peak < 0.5 * matrix.nbytes
