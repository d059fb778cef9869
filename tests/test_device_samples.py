"""Posterior samples on a GPU: solvers, their kernel built by g++, and complete chains on the substitute for CUDA."""

import fake_cuda
import numpy as np
import pytest
from kernel_cases import Case, check_update
from network_cases import expected, of_grid, parameters, random_network, rows_of, three_frames
from shim import COMPILER, ShimDevice

from mpi_fast.bundle import Bundle
from mpi_fast.errors import InputError
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.solvers import posterior_chain
from mpi_fast.likelihood import signal_scale
from mpi_fast.philox import standard_normal
from mpi_fast.pipelines import Sampling, device
from mpi_fast.samplers import SAMPLERS, get_sampler
from mpi_fast.schedule import SDES, VE

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
STEPS = {"dpm": 6, "heun": 5, "euler-maruyama": 30, "predictor-corrector": 20}


def denoise(x, sigma):
    """A denoiser that is not linear, depends on the noise level, and differs between voxels."""
    return np.tanh(1.5 * x) * 2 / (1 + min(sigma, 20) ** 2) + np.linspace(0.0, 0.2, x.shape[-1])


def noise(draw):
    return np.random.default_rng(draw).standard_normal((2, 7))


@pytest.mark.parametrize("name", [*SAMPLERS])
@pytest.mark.parametrize("sde", [*SDES])
@pytest.mark.parametrize("steps", [1, None])
def test_sums_are_the_sampler(name, sde, steps):
    steps, process = steps or STEPS[name], SDES[sde](0.02, 10.0)
    first = noise(0) + denoise(np.zeros((2, 7)), np.inf) / process.sigma_max
    wanted = get_sampler(name)(denoise, lambda draw: noise(draw) if draw else first, process, steps)
    chain = posterior_chain(name, process, steps)
    twice = name in ("heun", "predictor-corrector")
    assert len(chain) == (2 * steps if twice else steps + 1)  # the start takes one evaluation
    x = saved = np.zeros((2, 7))
    for sigma, one in chain:
        denoised = denoise(x, sigma)
        new = one.x * x + one.denoised * denoised + one.saved * saved
        if one.save_x or one.save_denoised or one.save_saved:
            saved = one.save_x * x + one.save_denoised * denoised + one.save_saved * saved
        x = new + (one.noise * noise(one.draw) if one.noise else 0)
    np.testing.assert_allclose(x, wanted, rtol=0, atol=1e-9)


@pytest.mark.parametrize("wrong", [{"sampler": "ddim"}, {"steps": 0}])
def test_a_sampler_that_there_is_not(wrong):
    with pytest.raises(InputError):
        posterior_chain(**{"sampler": "dpm", "sde": VE(), "steps": 3, **wrong})


@needs_compiler
@pytest.mark.parametrize("case", [Case(2, 3), Case(1, 5, (7, 13)), Case(1, 1, (1, 2)), Case(2, 2, (30, 31))], ids=str)
def test_the_update(tmp_path, case):
    device = ShimDevice(tmp_path)
    check_update(device, case)
    device.check_guards()


@pytest.fixture(scope="module")
def rows(true_rows):
    return three_frames(true_rows)


def by_torch(network, calibration, rows, sampling, sigma_range):
    """Samples as in `PosteriorGraph.samples`, computed by torch."""
    sde, count = SDES[sampling.sde](*sigma_range), sampling.samples
    reduced = calibration.reduce(rows)
    images = []
    for row, scale in zip(rows, signal_scale(reduced.y, calibration.singular_values, reduced.noise), strict=True):

        def denoised(x, sigma, row=row, scale=scale):
            given = scale * x.astype(np.float32), np.full(count, sigma**-2, np.float32)
            return expected(network, calibration, np.repeat(row[None], count, axis=0), *given)[0] / scale

        def noise(draw, denoised=denoised):
            drawn = standard_normal(sampling.seed, count, draw, calibration.num_voxels)
            return drawn if draw else drawn + denoised(0 * drawn, np.inf) / np.float32(sde.sigma_max)

        images.append(scale * get_sampler(sampling.sampler)(denoised, noise, sde, sampling.steps) if scale else 0)
    return images


@needs_compiler
@pytest.mark.parametrize(
    ("sampler", "sde", "steps"),
    [("dpm", "ve", 3), ("heun", "ve", 2), ("euler-maruyama", "vp", 3), ("predictor-corrector", "sub-vp", 2)],
)
def test_samples_are_those_of_the_cpu(monkeypatch, tmp_path, calibration, rows, sampler, sde, steps):
    """With random weights no step contracts the samples, so the noise of each step remains visible."""
    gpu = fake_cuda.install(monkeypatch, tmp_path)
    network, bundle = random_network(1), Bundle.open()
    monkeypatch.setattr(device, "network_parameters", lambda content, where: parameters(network))
    pipeline = device.PosteriorOnDevice(calibration, bundle, CupyDevice, (1, 4), 1)
    sampling = Sampling(2, steps, 7, sampler, sde)
    drawn = pipeline.samples(rows, sampling)  # six images, four at a time, which splits the samples of the second frame
    assert gpu.captured[-1] == ["plan", "project", "fine", "coarse", "image"]
    for found, wanted in zip(drawn, by_torch(network, calibration, rows, sampling, bundle.sigma_range), strict=True):
        assert np.abs(found - wanted).max() <= 3e-3 * np.abs(wanted).max()
    assert not drawn[1].any()
    assert np.abs(drawn[0, 0] - drawn[0, 1]).max() > 0.01 * drawn[0].max()
    np.testing.assert_array_equal(pipeline.samples(rows[2:], sampling)[0], drawn[2])


@needs_compiler
@pytest.mark.parametrize(("sampler", "sde", "steps"), [("dpm", "ve", 3), ("predictor-corrector", "vp", 2)])
def test_samples_of_volumes_are_those_of_the_cpu(monkeypatch, tmp_path, sampler, sde, steps):
    gpu = fake_cuda.install(monkeypatch, tmp_path)
    network, bundle, volume = random_network(2), Bundle.open(), of_grid((5, 7, 6), 40)
    monkeypatch.setattr(device, "network_parameters", lambda content, where: parameters(network))
    pipeline = device.PosteriorOnDevice(volume, bundle, CupyDevice, (1, 4), 1)
    sampling, rows = Sampling(2, steps, 7, sampler, sde), rows_of(volume, 3)
    drawn = pipeline.samples(rows, sampling)
    block = ["current", "residual", "changes", "fine"]
    assert gpu.captured[-1] == ["plan", "variances", *block, *block, "coarse", "image", "tails"]
    for found, wanted in zip(drawn, by_torch(network, volume, rows, sampling, bundle.sigma_range), strict=True):
        assert np.abs(found - wanted).max() <= 3e-3 * np.abs(wanted).max()
    assert np.abs(drawn[0, 0] - drawn[0, 1]).max() > 0.01 * drawn[0].max()
    np.testing.assert_array_equal(pipeline.samples(rows[2:], sampling)[0], drawn[2])
