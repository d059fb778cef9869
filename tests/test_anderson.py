"""Anderson acceleration reaches the fixed point of the plain iteration in fewer steps, separately for each state."""

import numpy as np
import pytest

from mpi_fast.methods.anderson import fixed_point


def contraction(rng, size=40, rate=0.9):
    """``z -> rate Q tanh(z) + c``, whose fixed point differs from row to row."""
    q, _ = np.linalg.qr(rng.standard_normal((size, size)))
    offset = rng.standard_normal((3, size))
    return lambda z: rate * np.tanh(z) @ q + offset[: len(z)]


def test_anderson_and_the_plain_iteration_find_the_same_fixed_point():
    step = contraction(np.random.default_rng(0))
    start = np.zeros((3, 40))
    plain, residual, slow = fixed_point(step, start, iterations=500, tolerance=1e-10, memory=1)
    assert residual.max() <= 1e-10
    np.testing.assert_allclose(step(plain), plain, atol=1e-8)
    accelerated, residual, fast = fixed_point(step, start, iterations=500, tolerance=1e-10)
    assert residual.max() <= 1e-10
    np.testing.assert_allclose(accelerated, plain, atol=1e-8)
    assert fast < slow


def test_anderson_solves_linear_problems_in_as_many_steps_as_dimensions():
    rng = np.random.default_rng(1)
    matrix, offset = 0.3 * rng.standard_normal((4, 4)), rng.standard_normal((2, 4))
    solution = np.linalg.solve(np.eye(4) - matrix, offset.T).T
    found, _, evaluations = fixed_point(lambda z: z @ matrix.T + offset, np.zeros((2, 4)), 25, 1e-6, memory=6)
    assert evaluations <= 8
    np.testing.assert_allclose(found, solution, rtol=1e-4)


def test_a_state_does_not_depend_on_its_batch():
    step = contraction(np.random.default_rng(2), rate=0.5)
    start = np.zeros((3, 40))
    together, residual, _ = fixed_point(step, start, 60, 1e-6)
    alone, first, _ = fixed_point(step, start[:1], 60, 1e-6)
    np.testing.assert_allclose(together[:1], alone, rtol=1e-12)
    assert residual[0] == pytest.approx(first[0])


def test_a_state_of_no_residual_stands_still_beside_others(recwarn):
    step = contraction(np.random.default_rng(3), rate=0.5)
    together, residual, _ = fixed_point(lambda z: np.stack([0 * z[0], *step(z)[1:]]), np.zeros((3, 40)), 60, 1e-6)
    assert not together[0].any()
    np.testing.assert_allclose(step(together)[1:], together[1:], atol=1e-5)
    assert residual[0] == 0
    assert residual.max() <= 1e-6
    assert not recwarn.list


def test_without_iterations_the_start_is_returned():
    start = np.ones((2, 4))
    state, residual, evaluations = fixed_point(np.cos, start, iterations=0)
    np.testing.assert_array_equal(state, start)
    assert np.isinf(residual).all()
    assert evaluations == 0
