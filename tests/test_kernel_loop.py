"""A whole reconstruction by the kernels, built by g++, with the bundled network: the images of the CPU."""

import numpy as np
import pytest
from shim import COMPILER, ShimDevice

from mpi_fast.bundle import Bundle
from mpi_fast.consensus import kept_of, level_of
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.errors import InputError
from mpi_fast.guidance import Likelihood
from mpi_fast.kernels import finish, guided_step, prepare, reduce
from mpi_fast.kernels.loop import Loop
from mpi_fast.kernels.prepare import STATISTICS
from mpi_fast.kernels.table import consensus_table, step_table
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Sampling
from mpi_fast.pipelines.steps import StepLoop
from mpi_fast.schedule import SDES

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
SAMPLES = 3
SIGMA_RANGE = Bundle.open().sigma_range
CONSENSUS = 2
STEPS = {"dpm": 5, "heun": 3, "euler-maruyama": 8, "predictor-corrector": 5}


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    return ShimDevice(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def rows(calibration, true_rows):
    """A phantom in little noise, one in much, a frame of zeros and one of noise."""
    rng = np.random.default_rng(4)
    phantoms = generate(["tumours", "resolution"], 2, seed=21).reshape(2, -1)
    signals = phantoms @ true_rows.T
    rows = np.concatenate([add_noise(signals[:1], 25.0, rng), add_noise(signals[1:], 5.0, rng)])
    empty = rng.standard_normal((1, calibration.num_rows)) / calibration.weights
    return np.concatenate([rows, 0 * rows[:1], empty.astype(np.complex64)])


@pytest.fixture(scope="module")
def engine():
    return OnnxEngine(Bundle.open())


def on_cpu(calibration, engine, sampler="dpm", sde="ve", guidance="proximal", consensus=CONSENSUS):
    sampling = Sampling(SAMPLES, STEPS[sampler], 3, sampler, sde, guidance, consensus=consensus)
    return StepLoop(calibration, sampling, SIGMA_RANGE, engine)


def loop_like(device, calibration, engine, rows, table, consensus=CONSENSUS, **options):
    agreement = (engine.bind(len(rows), 1), consensus_table(consensus, calibration.grid)) if consensus else None
    loop = Loop(device, calibration, engine.bind(len(rows), SAMPLES), table, 3, consensus=agreement, **options)
    loop.signals[...] = rows
    return loop


@pytest.mark.parametrize(
    ("sampler", "sde", "guidance", "consensus"),
    [
        ("dpm", "ve", "proximal", 7),
        ("dpm", "ve", "proximal", 1),
        ("dpm", "ve", "proximal", 0),
        ("dpm", "ve", "gradient", 0),
        ("dpm", "ve", "none", 0),
        ("heun", "ve", "proximal", 0),
        ("euler-maruyama", "ve", "proximal", 0),
        ("euler-maruyama", "sub-vp", "proximal", 0),
        ("predictor-corrector", "ve", "proximal", 2),
        ("predictor-corrector", "vp", "proximal", 0),
    ],
)
def test_images_are_those_of_the_step_loop(device, calibration, engine, rows, sampler, sde, guidance, consensus):
    reconstruct = on_cpu(calibration, engine, sampler, sde, guidance, consensus)
    table = step_table(sampler, SDES[sde](*SIGMA_RANGE), STEPS[sampler], guidance)
    loop = loop_like(device, calibration, engine, rows, table, consensus)
    loop()
    device.check_guards()

    likelihood = Likelihood(loop._y, calibration.singular_values, calibration.basis, loop.statistics[0])
    assert (kept_of(level_of(likelihood))[:2] < 1).tolist() == [False, True]
    samples = reconstruct.sample(likelihood)
    np.testing.assert_allclose(loop.state.x, samples, rtol=0, atol=1e-5 * np.abs(samples).max())
    expected = reconstruct(rows)
    for found, wanted in ((loop.image, expected.image), (loop.std, expected.std)):
        wanted = wanted.reshape(found.shape)
        largest = wanted.max(axis=1, keepdims=True)
        assert (np.abs(found - wanted) <= 1e-5 * largest).all()
    found = dict(zip(STATISTICS, loop.statistics, strict=True))
    np.testing.assert_allclose(found["snr_db"], expected.snr_db, atol=1e-4)
    np.testing.assert_allclose(found["noise_floor"], expected.noise_floor, rtol=1e-5)


def test_references_are_the_modules_that_the_step_loop_uses(calibration, engine, rows):
    """What the kernels are compared with, compared with what a user gets."""
    reconstruct = on_cpu(calibration, engine)
    expected, reduced = reconstruct(rows), calibration.reduce(rows)
    y, statistics, condition = prepare.reference(calibration, *reduce.reference(calibration, rows))
    noise, scale, _, snr_db, *_ = statistics
    unit = np.where(scale > 0, scale, 1)
    np.testing.assert_allclose(y * unit[:, None], reduced.y, rtol=1e-5, atol=1e-6 * np.abs(reduced.y).max())
    np.testing.assert_allclose((noise * unit)[scale > 0], reduced.noise[scale > 0], rtol=1e-5)
    np.testing.assert_allclose(snr_db, reduced.snr_db, atol=1e-4)

    likelihood = Likelihood(y, calibration.singular_values, calibration.basis, noise)

    def follow(table, x, shown=condition):
        evaluator = engine.bind(*x.shape[:2])
        evaluator.condition[...] = shown.reshape(evaluator.condition.shape)
        evaluator.encode()
        saved = denoised = np.zeros(x.shape)
        for number, row in enumerate(table):
            if number:
                denoised = evaluator.denoise().reshape(x.shape).astype(np.float64)
            drawn = mirrored_normal(3, x.shape[1], calibration.num_voxels, int(row["draw"]))
            x, saved, image = guided_step.reference(likelihood, row, denoised, x, saved, drawn, calibration.grid)
            sigma = guided_step.of_frames(likelihood, row)[0]
            evaluator.image[...], evaluator.sigma[:] = image.reshape(evaluator.image.shape), sigma.repeat(x.shape[1])
        return x

    nothing = np.zeros((len(rows), SAMPLES, calibration.num_voxels))
    samples = follow(step_table("dpm", SDES["ve"](*SIGMA_RANGE), STEPS["dpm"]), nothing)
    mean, _, _ = finish.reference(samples, statistics)
    no_signals = Likelihood.of_nothing(*mean.shape).condition()
    agreed = follow(consensus_table(CONSENSUS, calibration.grid), mean[:, None], no_signals)[:, 0]
    _, image, deviation = finish.reference(samples, statistics, agreed)
    for found, wanted in ((image, expected.image), (deviation, expected.std)):
        assert np.abs(found - wanted.reshape(found.shape)).max() <= 1e-5 * wanted.max()


def test_consensus_is_about_one_image_of_each_frame(device, calibration, engine):
    table, agreement = step_table("dpm", SDES["ve"](*SIGMA_RANGE), 2), consensus_table(2, calibration.grid)
    for wrong in ((2, 2), (1, 1)):
        with pytest.raises(InputError, match="expected one image of 2 frames"):
            Loop(device, calibration, engine.bind(2, 3), table, consensus=(engine.bind(*wrong), agreement))


def test_spectra_give_the_images_of_their_rows(device, calibration, engine, rows):
    spectra = np.full((len(rows), *calibration.selection.shape), np.nan + 0j, np.complex64)  # the rest is not read
    spectra[:, calibration.selection] = rows
    table = step_table("dpm", SDES["ve"](*SIGMA_RANGE), 1)
    images = []
    for signals, options in ((rows, {}), (spectra, {"spectra": True})):
        loop = loop_like(device, calibration, engine, signals, table, **options)
        loop()
        images.append(loop.image)
    np.testing.assert_array_equal(*images)
