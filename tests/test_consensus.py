"""Consensus between a denoiser and the signals, where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest

from mpi_fast import consensus
from mpi_fast.bundle import Bundle
from mpi_fast.consensus import (
    DAMPING,
    DOUBTFUL,
    ENOUGH,
    FIRST,
    HIGHEST,
    LAST,
    LEAST,
    LOWEST,
    NOISY,
    SHARE,
    WIDENING,
    agree,
    falling,
    kept_of,
    level_of,
    settle,
    share_of,
    widening_of,
    width_of,
)
from mpi_fast.guidance import Likelihood

GRID, FRAMES, VOXELS, RANK = (3, 4), 3, 12, 7


def problem():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((VOXELS, RANK)))[0].astype(np.float32)
    values = np.linspace(3.0, 0.5, RANK, dtype=np.float32)
    y = rng.standard_normal((FRAMES, RANK)).astype(np.float32)
    return Likelihood(y, values, basis, np.array([0.1, 0.5, 2.0], np.float32))


def gaussian(x, sigma):
    """The proximal map of the prior N(0, I): what D(x) = argmin ||z||^2 + ||z - x||^2 / sigma^2 is."""
    return x / (1 + sigma[:, None] ** 2)


def test_with_a_gaussian_prior_it_converges_to_the_posterior_mean():
    likelihood = replace(problem(), noise=problem().noise / 4)
    level = level_of(likelihood)
    assert (kept_of(level) == 1).all()
    assert widening_of(level).max() > 1.1  # wider than the prior, as far as it is doubted
    exact = likelihood.combine(np.zeros((FRAMES, 1, VOXELS), np.float32), widening_of(level))[:, 0]
    start = np.random.default_rng(1).standard_normal((FRAMES, VOXELS)).astype(np.float32)
    errors = [np.abs(agree(gaussian, likelihood, start, steps, GRID) - exact).max() for steps in (1, 30, 1500)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3  # a step multiplies the multiplier by 1 / ratio, which tends to 1 the more there are


def test_with_nothing_kept_of_the_multiplier_it_is_half_quadratic_splitting(monkeypatch):
    likelihood, steps = problem(), 5
    monkeypatch.setattr(consensus, "kept_of", np.zeros_like)
    start = np.random.default_rng(1).standard_normal((FRAMES, VOXELS)).astype(np.float32)
    image, level = start, level_of(likelihood)
    for factor in falling(steps)[0]:
        denoised = gaussian(image, factor * level)
        image = likelihood.combine(denoised[:, None], widening_of(level) * factor * level)[:, 0]
    np.testing.assert_allclose(agree(gaussian, likelihood, start, steps, GRID), image, rtol=1e-4, atol=1e-5)


def test_the_multiplier_is_kept_but_where_signals_are_noisy():
    levels = np.array([LOWEST, NOISY, NOISY + 0.1, HIGHEST], np.float32)
    np.testing.assert_allclose(kept_of(levels), [1, 1, 1 - 0.1 * DAMPING, 1 - DAMPING * (HIGHEST - NOISY)], rtol=1e-6)
    assert kept_of(levels).min() > 0


def test_no_steps_leave_the_image_and_the_start_is_not_written_to():
    start = np.ones((FRAMES, VOXELS), np.float32)
    np.testing.assert_array_equal(agree(gaussian, problem(), start, 0, GRID), start)
    agree(gaussian, problem(), start, 3, GRID)
    assert (start == 1).all()


def test_every_step_is_one_evaluation_at_a_falling_level_of_each_frame():
    asked, likelihood = [], problem()

    def denoise(x, sigma):
        asked.append(sigma)
        return x

    agree(denoise, likelihood, np.zeros((FRAMES, VOXELS), np.float32), 20, GRID)
    assert len(asked) == 20
    np.testing.assert_allclose(asked[0], FIRST * level_of(likelihood), rtol=1e-6)
    np.testing.assert_allclose(asked[-1], LAST * level_of(likelihood), rtol=1e-6)
    np.testing.assert_allclose(np.divide(asked[1:], asked[:-1]), falling(20)[1], rtol=1e-5)


def test_no_level_is_below_those_of_training():
    assert Bundle.open().sigma_range[0] - 1e-9 <= LOWEST * LAST


def test_few_steps_have_levels_about_one():
    assert falling(0)[0].shape == (0,)
    assert falling(1)[0] == 1
    for steps in range(2, ENOUGH):
        (first, *_, last), longer = falling(steps)[0], falling(steps + 1)[0]
        assert longer[0] > first > 1 > last > longer[-1]


@pytest.mark.parametrize(("grid", "count"), [((3, 4), 4), ((3, 3), 8)])
def test_the_denoiser_sees_one_symmetry_of_the_image_after_another(grid, count):
    seen = []

    def faithful(x, sigma):
        seen.append(x.reshape(-1, *grid))
        return x

    rng, voxels = np.random.default_rng(2), grid[0] * grid[1]
    start = rng.standard_normal((1, voxels)).astype(np.float32)
    blind = replace(Likelihood.of_nothing(1, voxels), singular_values=np.ones(1, np.float32))  # V is zero
    agreed = agree(faithful, blind, start, 2 * count, grid)
    np.testing.assert_array_equal(agreed, start)  # the denoiser left it as it was, so every symmetry was undone
    np.testing.assert_array_equal(seen[:count], seen[count:])
    upright = start.reshape(-1, *grid)
    flipped = upright, upright[:, ::-1], upright[:, :, ::-1], upright[:, ::-1, ::-1]
    np.testing.assert_array_equal(seen[:4], flipped)
    for number in range(4, count):
        np.testing.assert_array_equal(seen[number], seen[number - 4].swapaxes(1, 2))


def test_the_level_follows_the_noise_relative_to_what_the_scanner_sees():
    likelihood = problem()
    quiet = replace(likelihood, noise=likelihood.noise / 3)
    np.testing.assert_allclose(level_of(replace(quiet, noise=2.25 * quiet.noise)), 1.5 * level_of(quiet), rtol=1e-6)
    same = replace(quiet, noise=4 * quiet.noise, singular_values=4 * quiet.singular_values)
    np.testing.assert_allclose(level_of(same), level_of(quiet), rtol=1e-6)
    for factor, limit in ((100, HIGHEST), (1e-6, LOWEST)):
        found = level_of(replace(likelihood, noise=np.float32(factor) * likelihood.noise))
        np.testing.assert_allclose(found, limit, rtol=1e-6)


def test_the_mean_of_the_samples_keeps_a_share_where_the_signals_are_noisy():
    levels = np.array([LOWEST, DOUBTFUL, DOUBTFUL + 0.1, HIGHEST], np.float32)
    shares = share_of(levels)
    np.testing.assert_allclose(shares, [0, 0, 0.1 * SHARE, SHARE * (HIGHEST - DOUBTFUL)], atol=1e-7)
    samples, agreed = np.array([[[1.0], [3.0]]] * 4), np.full((4, 1), 4.0)
    image, _ = settle(samples, agreed, shares, width_of(levels))
    np.testing.assert_allclose(image[:, 0], 4 - 2 * shares, rtol=1e-6)


def test_the_denoiser_counts_less_where_the_signals_are_noisy():
    levels = np.array([LOWEST, DOUBTFUL, HIGHEST], np.float32)
    np.testing.assert_allclose(widening_of(levels), [1, 1, 1 + WIDENING * (HIGHEST - DOUBTFUL)], rtol=1e-6)


def test_uncertainty_grows_with_what_samples_say_with_the_image_and_with_noise():
    np.testing.assert_allclose(width_of(np.array([LOWEST, HIGHEST])), [LEAST + LOWEST, LEAST + HIGHEST], rtol=1e-6)
    samples, none = np.array([[[1.0, -1.0, 4.0], [3.0, -3.0, 4.0]]]), np.zeros(1, np.float32)
    image, deviation = settle(samples, np.array([[2.0, -2.0, 4.0]]), none, np.array([0.5]))
    np.testing.assert_array_equal(image, [[2.0, -2.0, 4.0]])
    np.testing.assert_allclose(deviation, [[0.5 * np.sqrt(3.0), 0.5, 0.0]])
    double, twice = settle(2 * samples, 2 * image, none, np.array([0.5]))
    np.testing.assert_allclose([double, twice], [2 * image, 2 * deviation])
