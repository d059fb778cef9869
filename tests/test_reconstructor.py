"""The Reconstructor as its users meet it: scale, seeds, batches, empty frames, options."""

import subprocess
import sys

import numpy as np
import pytest

from mpi_fast import Reconstructor
from mpi_fast.consensus import HIGHEST, LEAST, LOWEST
from mpi_fast.errors import InputError, ModelError
from mpi_fast.metrics import psnr
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate


@pytest.fixture(scope="module")
def reconstructor(calibration) -> Reconstructor:
    return Reconstructor(calibration)


@pytest.fixture(scope="module")
def phantoms():
    return generate(["tumours", "resolution", "dots"], 12, seed=21)


@pytest.fixture(scope="module")
def rows(phantoms, true_rows):
    return add_noise(phantoms.reshape(12, -1) @ true_rows.T, 25.0, np.random.default_rng(2))


def test_images_look_like_the_phantoms(reconstructor, rows, phantoms):
    out = reconstructor(rows)
    assert out.image.shape == out.std.shape == (12, 19, 19)
    assert out.image.dtype == out.std.dtype == np.float32
    assert (out.image >= 0).all()
    assert (out.std > 0).all()
    assert psnr(out.image, phantoms).mean() > 25
    np.testing.assert_allclose(out.snr_db, 25, atol=2)


def test_total_concentration_is_recovered(reconstructor, rows, phantoms):
    ratio = reconstructor(rows).image.sum(axis=(1, 2)) / phantoms.sum(axis=(1, 2))
    assert abs(ratio.mean() - 1) < 0.1


@pytest.mark.parametrize("factor", [1e-6, 1e-3, 1e3, 1e6])
def test_images_scale_with_the_signals(reconstructor, rows, factor):
    expected = factor * reconstructor(rows[:4]).image
    found = reconstructor(np.complex64(factor) * rows[:4]).image
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.max())


def test_the_same_seed_gives_the_same_bits_and_another_seed_other_ones(calibration, reconstructor, rows):
    first = reconstructor(rows[:3])
    again, other = Reconstructor(calibration)(rows[:3]), Reconstructor(calibration, seed=1)(rows[:3])
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.std, again.std)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("sampler", ["dpm", "predictor-corrector"])
def test_batches_and_threads_do_not_matter(calibration, rows, sampler):
    def images(threads):
        return Reconstructor(calibration, samples=4, steps=4, sampler=sampler, threads=threads)

    whole = images(1)(rows).image
    parts = np.concatenate([out.image for out in images(2).stream([rows[:1], rows[1:6], rows[6:]])])
    np.testing.assert_allclose(parts, whole, atol=1e-5 * whole.max())


def test_frames_without_particles_come_out_empty(reconstructor, calibration):
    rng = np.random.default_rng(8)
    noise = rng.standard_normal((64, calibration.num_rows)) + 1j * rng.standard_normal((64, calibration.num_rows))
    out = reconstructor((1e-3 * noise / calibration.weights).astype(np.complex64))
    assert (out.image.max(axis=(1, 2)) < 3 * out.noise_floor).all()


def test_frames_of_zeros_are_empty_and_no_frames_are_no_images(reconstructor, calibration):
    out = reconstructor(np.zeros((2, calibration.num_rows), np.complex64))
    assert not out.image.any()
    assert not out.std.any()
    assert reconstructor(np.zeros((0, calibration.num_rows), np.complex64)).image.shape == (0, 19, 19)


@pytest.mark.parametrize("sampler", ["dpm", "heun", "euler-maruyama", "predictor-corrector"])
@pytest.mark.parametrize("sde", ["ve", "vp", "sub-vp"])
def test_every_sampler_reconstructs(calibration, rows, phantoms, sampler, sde):
    steps = {"dpm": 5, "heun": 4, "euler-maruyama": 40, "predictor-corrector": 30}[sampler]
    out = Reconstructor(calibration, samples=2, steps=steps, sampler=sampler, sde=sde)(rows[:3])
    assert psnr(out.image, phantoms[:3]).mean() > 20


def test_guidance_fits_the_signals_better(calibration, rows):
    def misfit(guidance):
        image = Reconstructor(calibration, guidance=guidance, consensus=0)(rows).image.reshape(12, -1)
        reduced = calibration.reduce(rows)
        residual = reduced.y - image @ calibration.basis * calibration.singular_values
        return np.mean(np.square(residual) / reduced.noise[:, None] ** 2)

    assert misfit("proximal") < misfit("none")
    assert misfit("gradient") < misfit("none")


def test_consensus_brings_images_closer_to_the_phantoms(calibration, rows, phantoms):
    found = [psnr(Reconstructor(calibration, consensus=steps)(rows).image, phantoms).mean() for steps in (0, 5)]
    assert found[1] > found[0] + 0.3


def test_std_follows_the_deviation_of_the_samples_from_the_image_and_the_image(calibration, rows):
    bright = slice(0, 4)
    alone, agreed = (Reconstructor(calibration, consensus=steps)(rows[bright]) for steps in (0, 3))
    apart = np.hypot(alone.std, agreed.image - alone.image)
    for std, expected, image, mean in zip(agreed.std, apart, agreed.image, alone.image, strict=True):
        lit = (image > 0) & (mean > 0)
        widths = std[lit] / np.sqrt(expected[lit] * (expected[lit] + image[lit]))
        np.testing.assert_allclose(widths, np.median(widths), rtol=1e-3)  # one for all voxels of a frame
        assert LEAST + LOWEST <= np.median(widths) <= LEAST + HIGHEST


def test_one_sample_and_one_step(calibration, rows):
    out = Reconstructor(calibration, samples=1, steps=1, consensus=0)(rows[:2])
    assert not out.std.any()
    assert out.image.any()


def test_the_uncertainty_covers_the_error_about_as_often_as_it_says(reconstructor, true_rows):
    images = generate(["tumours", "vessels", "regions"], 48, seed=77)
    rows = add_noise(images.reshape(48, -1) @ true_rows.T, 20.0, np.random.default_rng(0))
    out = reconstructor(rows)
    held = np.abs(out.image - images) <= 1.96 * out.std
    for voxels in (images > 0.1, images <= 0.1):
        assert 0.88 < held[voxels].mean() < 0.995


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "tpu"},
        {"sampler": "ddim"},
        {"sde": "ou"},
        {"guidance": "hope"},
        {"samples": 0},
        {"steps": 0},
        {"threads": 0},
        {"seed": -1},
        {"strength": 0.0},
    ],
)
def test_options_out_of_range(calibration, rows, wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        Reconstructor(calibration, **wrong)(rows[:1])


def test_a_model_that_is_not_there(calibration, tmp_path):
    with pytest.raises(ModelError, match="manifest"):
        Reconstructor(calibration, model=tmp_path)


def test_importing_the_package_is_quick_and_free_of_torch():
    code = "import sys, mpi_fast; assert not {'torch', 'onnxruntime', 'matplotlib', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; from mpi_fast import Reconstructor, Calibration; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
