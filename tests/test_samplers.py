"""samplers.py against Gaussian priors, whose denoiser, flow and posterior are known in closed form."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_fast.errors import InputError
from mpi_fast.philox import standard_normal
from mpi_fast.samplers import SAMPLERS, dpm_solver_2m, euler_maruyama, get_sampler, heun, predictor_corrector
from mpi_fast.schedule import VE, VP, SubVP, karras_sigmas

N = 6
SIGMA_MIN, SIGMA_MAX = 0.01, 10.0
EIGENVALUES = np.array([0.05, 0.2, 0.5, 1.0, 1.5, 2.0])
MEAN = np.array([0.5, -0.3, 0.2, 0.8, 0.0, 1.0])
ODE = {"dpm": dpm_solver_2m, "heun": heun}
each_ode = pytest.mark.parametrize("solver", ODE.values(), ids=ODE)
each_sampler = pytest.mark.parametrize("name", SAMPLERS)
each_sde = pytest.mark.parametrize("sde", [VE(), VP(), SubVP()], ids=["ve", "vp", "sub-vp"])


class Gaussian:
    """The prior N(mean, covariance), and its denoiser D(x; sigma) = m + C (C + sigma^2 I)^-1 (x - m)."""

    def __init__(self, mean, covariance):
        self.mean, self.covariance = mean, covariance
        self.eigenvalues, self.basis = np.linalg.eigh(covariance)

    def posterior(self, A, y, noise):
        """What a measurement y = A x + N(0, noise^2) leaves of it."""
        precision = np.linalg.inv(self.covariance)
        covariance = np.linalg.inv(precision + A.T @ A / noise**2)
        return Gaussian(covariance @ (precision @ self.mean + A.T @ y / noise**2), covariance)

    def _in_basis(self, gains, x):
        return self.mean + ((x - self.mean) @ self.basis * gains) @ self.basis.T

    def denoise(self, x, sigma):
        gains = self.eigenvalues / (self.eigenvalues + sigma**2)
        return self._in_basis(gains, x.astype(np.float64)).astype(x.dtype)

    def flow(self, x):
        """The probability-flow ODE from sigma_max to sigma_min, solved exactly, and D at its end."""
        v = self.eigenvalues
        ode = np.sqrt((v + SIGMA_MIN**2) / (v + SIGMA_MAX**2))
        return self._in_basis(v / (v + SIGMA_MIN**2) * ode, x)


def correlated_prior():
    rotation, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((N, N)))
    return Gaussian(MEAN, rotation * EIGENVALUES @ rotation.T)


def measured_posterior():
    """Two informative rows, one poor one: as in MPI, the measurement leaves most dimensions to the prior."""
    rng = np.random.default_rng(4)
    A = rng.standard_normal((3, N)) * [[1.0], [1.0], [0.05]]
    return correlated_prior().posterior(A, A @ rng.standard_normal(N), noise=0.2)


PROBLEMS = {
    "diagonal": Gaussian(MEAN, np.diag(EIGENVALUES)),
    "correlated": correlated_prior(),
    "posterior": measured_posterior(),
}
each_problem = pytest.mark.parametrize("problem", PROBLEMS.values(), ids=PROBLEMS)


def philox_noise(samples, seed=0, voxels=N, dtype=np.float32):
    return lambda k: standard_normal(seed, samples, k, voxels).astype(dtype)


def denoise_voxels(x, sigma):
    """A non-linear denoiser (a two-point prior at +-1) that is bitwise independent of the batch."""
    return np.tanh(x / sigma**2).astype(x.dtype)


def sample(name, denoise, noise, steps, sde=VE()):  # noqa: B008 (frozen)
    """Images (batch, N) by the sampler of this name."""
    return get_sampler(name)(denoise, noise, sde, steps)


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
    """Mean and covariance of the samples: those of N(m, C), given that x(T) is white."""
    problem, count = PROBLEMS["correlated"], 20_000
    x = sample(name, problem.denoise, philox_noise(count), 20).astype(np.float64)
    # The start ignores what is left of the mean at sigma_max: m sqrt(v / (v + sigma_max^2)) <= 0.14 m here.
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

    With a linear denoiser the output is an affine function of the draws of noise. So feed it no noise at all
    (the mean) and, in further rows of the batch, one unit draw each: the squared responses add up to the
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
    # What is left of the start: m v / (v + sigma_max^2).
    np.testing.assert_allclose(mean, MEAN, rtol=0, atol=0.02)
    np.testing.assert_allclose(variance, EIGENVALUES, rtol=0.003)


@each_sde
def test_predictor_corrector_has_the_moments_of_the_prior(sde):
    problem = PROBLEMS["diagonal"]
    mean, variance = exact_moments(lambda d, n: predictor_corrector(d, n, sde, 400), problem, draws=799)
    np.testing.assert_allclose(mean, MEAN, rtol=0, atol=0.002)  # the corrector forgets the start
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
    """Many Langevin steps at one level end in p_t: with norms of the single image they would not."""
    sde = VE(0.5, 0.6)
    problem = Gaussian(np.zeros(N), np.eye(N))
    draws = 1 + 1 + 400
    _, variance = exact_moments(lambda d, n: predictor_corrector(d, n, sde, 2, corrector_steps=400), problem, draws)
    # x has the variance v = 1.25 at sigma = 0.5, D divides it by v^2; the finite step adds eps / (2 v) < 1 %.
    np.testing.assert_allclose(variance, 1 / 1.25, rtol=0.01)


# ---------------------------------------------------------------- contracts


@each_sampler
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_evaluations_are_counted_and_draws_are_used_once(name, steps):
    draws, sigmas, source = [], [], philox_noise(3)

    def denoise(x, sigma):
        assert type(sigma) is float
        sigmas.append(sigma)
        return denoise_voxels(x, sigma)

    def noise(k):
        draws.append(k)
        return source(k)

    sample(name, denoise, noise, steps)
    assert len(sigmas) == (2 * steps - 1 if name in ("heun", "predictor-corrector") else steps)
    assert draws == list(range(1 if name in ODE else len(sigmas)))
    assert sigmas[0] == pytest.approx(SIGMA_MAX)
    assert sigmas[-1] == pytest.approx(SIGMA_MIN if steps > 1 else SIGMA_MAX)


@each_sampler
@each_sde
def test_batching_does_not_matter(name, sde):
    noise, parts = philox_noise(5), (slice(2), slice(2, 3), slice(3, 5))
    whole = sample(name, denoise_voxels, noise, 6, sde)
    parts = [sample(name, denoise_voxels, lambda k, part=part: noise(k)[part], 6, sde) for part in parts]
    np.testing.assert_array_equal(whole, np.concatenate(parts))


@each_sampler
@each_sde
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_dtype_is_that_of_the_noise_and_runs_repeat(name, sde, dtype):
    noise = philox_noise(4, dtype=dtype)
    first = sample(name, denoise_voxels, noise, 5, sde)
    assert first.dtype == dtype
    assert first.shape == (4, N)
    np.testing.assert_array_equal(first, sample(name, denoise_voxels, noise, 5, sde))
    promoted = sample(name, lambda x, sigma: denoise_voxels(x, sigma).astype(np.float64), noise, 5, sde)
    assert promoted.dtype == dtype


@each_sampler
@each_sde
def test_single_precision_suffices(name, sde):
    exact = sample(name, PROBLEMS["correlated"].denoise, philox_noise(8, dtype=np.float64), 20, sde)
    single = sample(name, PROBLEMS["correlated"].denoise, philox_noise(8), 20, sde)
    np.testing.assert_allclose(single, exact, rtol=0, atol=2e-5)


@each_sampler
def test_arrays_of_others_are_neither_written_nor_kept(name):
    """Read-only arrays cannot be written; reused, poisoned buffers betray a reference kept across calls."""
    shape, source = (3, N), philox_noise(3)
    denoised_buffer, noise_buffer = np.empty(shape, np.float32), np.empty(shape, np.float32)

    def read_only(x):
        view = x.view()
        view.flags.writeable = False
        return view

    def denoise(x, sigma):
        noise_buffer[...] = np.nan
        denoised_buffer[...] = denoise_voxels(x, sigma)
        return read_only(denoised_buffer)

    def noise(k):
        denoised_buffer[...] = np.nan
        noise_buffer[...] = source(k)
        return read_only(noise_buffer)

    result = sample(name, denoise, noise, 6)
    np.testing.assert_array_equal(result, sample(name, denoise_voxels, source, 6))
    assert not np.shares_memory(result, denoised_buffer)
    assert not np.shares_memory(result, noise_buffer)


@each_sampler
def test_a_denoiser_may_return_its_argument(name):
    noise = philox_noise(3)
    expected = sample(name, lambda x, sigma: x.copy(), noise, 5)
    np.testing.assert_array_equal(sample(name, lambda x, sigma: x, noise, 5), expected)


@each_sampler
def test_workspace_is_constant(name):
    """At most four arrays, however many steps."""
    draw = np.ones((8, 5000), np.float32)
    buffer = np.empty_like(draw)

    def peak(steps):
        tracemalloc.start()
        sample(name, lambda x, sigma: np.multiply(x, 0.5, out=buffer), lambda k: draw, steps)
        _, high = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return high

    assert peak(3) < 4.2 * draw.nbytes
    assert peak(30) < 4.2 * draw.nbytes


@settings(max_examples=25)
@given(st.sampled_from(list(SAMPLERS)), st.integers(1, 30), st.integers(1, 4), st.integers(1, 9))
def test_results_are_finite_for_any_size(name, steps, batch, voxels):
    x = sample(name, denoise_voxels, philox_noise(batch, voxels=voxels), steps)
    assert x.shape == (batch, voxels)
    assert np.all(np.abs(x) <= 1)


# ---------------------------------------------------------------- registry and refusals


def test_names():
    assert set(SAMPLERS) == {"dpm", "heun", "euler-maruyama", "predictor-corrector"}
    with pytest.raises(InputError, match="sampler is 'ddim', expected one of dpm, heun"):
        get_sampler("ddim")


def test_registry_takes_the_noise_range_from_the_sde():
    levels = []

    def denoise(x, sigma):
        levels.append(sigma)
        return x

    sample("dpm", denoise, philox_noise(1), 4, VP(0.05, 3.0))
    np.testing.assert_allclose(levels, karras_sigmas(4, 0.05, 3.0)[:-1])


@each_ode
@pytest.mark.parametrize(
    "sigmas",
    [
        [1.0, 0.5],
        [0.0],
        [1.0, 1.0, 0.0],
        [1.0, 2.0, 0.0],
        [[1.0, 0.0]],
        [math.inf, 1.0, 0.0],
        [math.nan, 0.0],
    ],
)
def test_grids_that_do_not_decrease_to_zero_are_refused(solver, sigmas):
    with pytest.raises(InputError, match="expected at least two finite, decreasing numbers"):
        solver(denoise_voxels, philox_noise(1), sigmas)


@each_sampler
def test_misfits_of_noise_and_denoiser_are_refused(name):
    with pytest.raises(InputError, match=r"noise\(0\) is float32 \(6,\)"):
        sample(name, denoise_voxels, lambda k: np.zeros(N, np.float32), 3)
    with pytest.raises(InputError, match=r"noise\(0\) is int64"):
        sample(name, denoise_voxels, lambda k: np.zeros((1, N), np.int64), 3)
    with pytest.raises(InputError, match=r"the denoised batch has shape \(6,\), expected \(2, 6\)"):
        sample(name, lambda x, sigma: x[0], philox_noise(2), 3)
    source = philox_noise(2)
    if name not in ODE:
        with pytest.raises(InputError, match=r"noise\(1\) has shape \(1, 6\), expected \(2, 6\)"):
            sample(name, denoise_voxels, lambda k: source(k)[: 2 if k == 0 else 1], 3)
    with pytest.raises(InputError, match="steps is 0"):
        sample(name, denoise_voxels, philox_noise(1), 0)


def test_predictor_corrector_refuses_a_negative_number_of_steps():
    with pytest.raises(InputError, match="predictor_corrector: corrector_steps is"):
        predictor_corrector(denoise_voxels, philox_noise(1), VE(), 3, corrector_steps=-1)


def test_no_corrector_leaves_the_predictor():
    """For VE the reverse-diffusion predictor is algorithm 2's line; compare with it written out."""
    sde, noise, denoise = VE(), philox_noise(2, dtype=np.float64), PROBLEMS["diagonal"].denoise
    levels = [sde.sigma(t) for t in np.linspace(1.0, 0.0, 5)]
    x = levels[0] * noise(0)
    for k, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        score = (denoise(x, sigma) - x) / sigma**2
        gap = sigma**2 - sigma_next**2
        x = x + gap * score + math.sqrt(gap) * noise(k + 1)
    result = predictor_corrector(denoise, noise, sde, 5, corrector_steps=0)
    np.testing.assert_allclose(result, denoise(x, levels[-1]), rtol=1e-9)
