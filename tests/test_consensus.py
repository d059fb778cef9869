"""Consensus between a denoiser and the signals, where the answer is known."""

import numpy as np

from mpi_fast.consensus import LEVEL, agree
from mpi_fast.guidance import Likelihood

FRAMES, VOXELS, RANK = 3, 12, 7


def problem():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((VOXELS, RANK)))[0].astype(np.float32)
    values = np.linspace(3.0, 0.5, RANK, dtype=np.float32)
    y = rng.standard_normal((FRAMES, RANK)).astype(np.float32)
    return Likelihood(y, values, basis, np.array([0.1, 0.5, 2.0], np.float32))


def gaussian(x, sigma):
    """The proximal map of the prior N(0, I): what D(x) = argmin ||z||^2 + ||z - x||^2 / sigma^2 is."""
    return x / (1 + sigma**2)


def test_with_a_gaussian_prior_it_converges_to_the_posterior_mean():
    likelihood = problem()
    exact = likelihood.combine(np.zeros((FRAMES, 1, VOXELS), np.float32), 1.0)[:, 0]
    start = np.random.default_rng(1).standard_normal((FRAMES, VOXELS)).astype(np.float32)
    errors = [np.abs(agree(gaussian, likelihood, start, steps) - exact).max() for steps in (1, 30, 400)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-4


def test_no_steps_leave_the_image_and_the_start_is_not_written_to():
    start = np.ones((FRAMES, VOXELS), np.float32)
    np.testing.assert_array_equal(agree(gaussian, problem(), start, 0), start)
    agree(gaussian, problem(), start, 3)
    assert (start == 1).all()


def test_every_step_is_one_evaluation_at_one_level():
    asked = []

    def denoise(x, sigma):
        asked.append(sigma)
        return x

    agree(denoise, problem(), np.zeros((FRAMES, VOXELS), np.float32), 4)
    assert asked == 4 * [LEVEL]
