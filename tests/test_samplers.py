"""Comparison of samplers.py with Gaussian priors, whose denoiser, flow and posterior are known in closed form."""

import itertools
import math

import numpy as np
import pytest
from gaussian_problems import (
    EIGENVALUES,
    MEAN,
    ODE,
    PROBLEMS,
    SIGMA_MAX,
    Gaussian,
    N,
    each_ode,
    each_problem,
    each_sampler,
    each_sde,
    philox_noise,
    sample,
)

from mpi_fast.samplers import dpm_solver_2m, euler_maruyama, heun, predictor_corrector
from mpi_fast.schedule import VE, karras_sigmas


def rms(error):
    return float(np.sqrt(np.mean(error**2)))


# ---------------------------------------------------------------- deterministic solvers


@each_ode
@each_problem
def test_ode_solvers_converge_at_second_order(solver, problem):
    noise = philox_noise(64, dtype=np.float64)
    exact = problem.flow(SIGMA_MAX * noise(0))
    errors = [rms(solver(problem.denoise, noise, karras_sigmas(steps)) - exact) for steps in (40, 80, 160)]
    for coarse, fine in itertools.pairwise(errors):
        assert 1.9 < math.log2(coarse / fine) < 2.3
    assert errors[-1] < 3e-4


@each_ode
def test_ode_solvers_at_few_steps(solver):
    """Root-mean-square error at 5, 10 and 20 steps, relative to images of standard deviation 1.

    Measured: dpm 0.115, 0.059, 0.0123; heun, at twice the evaluations, 0.326, 0.055, 0.0116.
    """
    problem, noise = PROBLEMS["correlated"], philox_noise(64, dtype=np.float64)
    exact = problem.flow(SIGMA_MAX * noise(0))
    errors = [rms(solver(problem.denoise, noise, karras_sigmas(steps)) - exact) for steps in (5, 10, 20)]
    limits = {dpm_solver_2m: (0.13, 0.065, 0.014), heun: (0.36, 0.06, 0.013)}
    assert np.all(np.array(errors) < limits[solver])


@pytest.mark.parametrize("name", ODE)
def test_ode_solvers_draw_from_the_prior(name):
    """Mean and covariance of the samples are those of N(m, C), if x(T) is white."""
    problem, count = PROBLEMS["correlated"], 20_000
    x = sample(name, problem.denoise, philox_noise(count), 20).astype(np.float64)
    # The start ignores the remaining mean at sigma_max: m sqrt(v / (v + sigma_max^2)) <= 0.14 m here.
    assert_moments(x, problem, mean_bias=0.14 * np.abs(MEAN).max())


@each_sampler
def test_one_step_is_one_denoising(name):
    noise = philox_noise(5)
    expected = PROBLEMS["diagonal"].denoise(np.float32(SIGMA_MAX) * noise(0), SIGMA_MAX)
    np.testing.assert_allclose(sample(name, PROBLEMS["diagonal"].denoise, noise, 1), expected, rtol=1e-6)


@each_ode
def test_a_constant_denoiser_is_returned_exactly(solver):
    target = np.linspace(-1, 1, 2 * N, dtype=np.float32).reshape(2, N)
    result = solver(lambda x, sigma: target, philox_noise(2), karras_sigmas(7))
    np.testing.assert_array_equal(result, target)
    assert not np.shares_memory(result, target)


def test_dpm_solver_follows_a_moving_target():
    """With D = ln sigma the ODE x' = (x - ln sigma) / sigma has the solution ln sigma + 1 + C sigma."""
    levels = {steps: np.append(np.geomspace(10.0, 0.1, steps), 0.0) for steps in (32, 64)}
    errors = []
    for grid in levels.values():
        seen = []

        def denoise(x, sigma, seen=seen):
            seen.append(x.item())
            return np.full_like(x, math.log(sigma))

        start = (math.log(10.0) + 1.0) / 10.0  # C = 0
        dpm_solver_2m(denoise, lambda k, start=start: np.full((1, 1), start), grid)
        errors.append(abs(seen[-1] - (math.log(0.1) + 1.0)))
    assert errors[1] < 1e-3
    assert 1.8 < math.log2(errors[0] / errors[1]) < 2.2


# ---------------------------------------------------------------- stochastic samplers


def exact_moments(sampler, problem, draws):
    """Mean and variance of a sampler's output, without sampling error.

    With a linear denoiser the output is an affine function of the draws of noise. So one row of the batch gets no
    noise, which gives the mean, and each further row gets one unit draw; the squared responses add up to the
    variance.
    """

    def noise(k):
        rows = np.zeros((draws + 1, N))
        rows[k + 1] = 1.0
        return rows

    result = sampler(problem.denoise, noise)
    return result[0], np.sum((result[1:] - result[0]) ** 2, axis=0)


@each_sde
def test_euler_maruyama_has_the_moments_of_the_prior(sde):
    problem = PROBLEMS["diagonal"]
    mean, variance = exact_moments(lambda d, n: euler_maruyama(d, n, sde, 400), problem, draws=400)
    # Remaining influence of the start: m v / (v + sigma_max^2).
    np.testing.assert_allclose(mean, MEAN, rtol=0, atol=0.02)
    np.testing.assert_allclose(variance, EIGENVALUES, rtol=0.003)


@each_sde
def test_predictor_corrector_has_the_moments_of_the_prior(sde):
    problem = PROBLEMS["diagonal"]
    mean, variance = exact_moments(lambda d, n: predictor_corrector(d, n, sde, 400), problem, draws=799)
    np.testing.assert_allclose(mean, MEAN, rtol=0, atol=0.002)  # the corrector removes the influence of the start
    np.testing.assert_allclose(variance, EIGENVALUES, rtol=0.013)


@each_sde
def test_euler_maruyama_converges_at_first_order_or_better(sde):
    """Twice the steps halve the error of the variance (for VE the first-order term all but cancels)."""
    variance = {
        k: exact_moments(lambda d, n, k=k: euler_maruyama(d, n, sde, k), PROBLEMS["diagonal"], k)[1][1:]
        for k in (100, 200, 400)
    }
    ratio = (variance[100] - variance[200]) / (variance[200] - variance[400])
    assert np.all(ratio > 1.8)


def assert_moments(x, problem, mean_bias=0.0, variance_bias=0.0):
    """Mean and covariance within 4.5 standard errors and the stated bias of discretisation."""
    count = len(x)
    standard_deviation = np.sqrt(np.diag(problem.covariance))
    assert np.all(np.abs(x.mean(0) - problem.mean) < 4.5 * standard_deviation / np.sqrt(count) + mean_bias)
    scale = np.outer(standard_deviation, standard_deviation)
    error = np.abs(np.cov(x.T) - problem.covariance) / scale
    assert np.all(error < 4.5 * np.sqrt(2 / count) + variance_bias)


@each_sde
@pytest.mark.parametrize(("sampler", "steps"), [(euler_maruyama, 200), (predictor_corrector, 150)])
@pytest.mark.parametrize("problem", [PROBLEMS["correlated"], PROBLEMS["posterior"]], ids=["prior", "posterior"])
def test_stochastic_samplers_draw_from_prior_and_posterior(problem, sampler, steps, sde):
    x = sampler(problem.denoise, philox_noise(2000, seed=1), sde, steps).astype(np.float64)
    assert_moments(x, problem, mean_bias=0.025, variance_bias=0.08)


def test_corrector_alone_samples_the_level_it_corrects():
    """Many Langevin steps at one level end in p_t; with norms of single images they would not."""
    sde = VE(0.5, 0.6)
    problem = Gaussian(np.zeros(N), np.eye(N))
    draws = 1 + 1 + 400
    _, variance = exact_moments(lambda d, n: predictor_corrector(d, n, sde, 2, corrector_steps=400), problem, draws)
    # x has the variance v = 1.25 at sigma = 0.5, D divides it by v^2; the finite step adds eps / (2 v) < 1 %.
    np.testing.assert_allclose(variance, 1 / 1.25, rtol=0.01)
