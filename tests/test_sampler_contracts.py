"""Common properties of all samplers: evaluations, draws, batches, precision, memory, and refused input."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from gaussian_problems import (
    ODE,
    PROBLEMS,
    SIGMA_MAX,
    SIGMA_MIN,
    N,
    denoise_voxels,
    each_ode,
    each_sampler,
    each_sde,
    philox_noise,
    sample,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mpi_fast.errors import InputError
from mpi_fast.kernels.solvers import SOLVERS, posterior_chain
from mpi_fast.samplers import SAMPLERS, get_sampler, predictor_corrector
from mpi_fast.schedule import VE, VP, karras_sigmas

# ---------------------------------------------------------------- contracts


def test_every_sampler_is_also_for_the_gpu(monkeypatch):
    assert set(SAMPLERS) == set(SOLVERS)
    monkeypatch.setitem(SAMPLERS, "own", predictor_corrector)
    with pytest.raises(InputError, match="sampler 'own' is not for the GPU: expected one of dpm, heun"):
        posterior_chain("own", VE(SIGMA_MIN, SIGMA_MAX), 4)


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
    """Read-only arrays detect writes; reused, poisoned buffers detect references kept across calls."""
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
    """At most four arrays, for any number of steps."""
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
    """For VE the reverse-diffusion predictor is the line of algorithm 2, which is written out here."""
    sde, noise, denoise = VE(), philox_noise(2, dtype=np.float64), PROBLEMS["diagonal"].denoise
    levels = [sde.sigma(t) for t in np.linspace(1.0, 0.0, 5)]
    x = levels[0] * noise(0)
    for k, (sigma, sigma_next) in enumerate(itertools.pairwise(levels)):
        score = (denoise(x, sigma) - x) / sigma**2
        gap = sigma**2 - sigma_next**2
        x = x + gap * score + math.sqrt(gap) * noise(k + 1)
    result = predictor_corrector(denoise, noise, sde, 5, corrector_steps=0)
    np.testing.assert_allclose(result, denoise(x, levels[-1]), rtol=1e-9)
