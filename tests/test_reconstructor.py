"""The Reconstructor: scale, samples, batches, empty frames, options."""

import subprocess
import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from mpi_fast import Reconstructor
from mpi_fast import reconstructor as module
from mpi_fast.consistency import consistent
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


@pytest.mark.parametrize("factor", [1e-30, 1e-26, 1e-22, 1e-18, 1e-12, 1e-6, 1e-3, 1e3, 1e6])
def test_images_and_uncertainty_scale_with_the_signals(reconstructor, rows, factor):
    expected, found = reconstructor(rows[:4]), reconstructor(np.complex64(factor) * rows[:4])
    for name in ("image", "std", "noise_floor"):
        scaled = factor * getattr(expected, name)
        np.testing.assert_allclose(getattr(found, name), scaled, atol=1e-4 * scaled.max(), rtol=0)
    np.testing.assert_array_equal(found.flags, expected.flags)


def test_the_same_signals_give_the_same_bits(calibration, reconstructor, rows):
    first, again = reconstructor(rows[:3]), Reconstructor(calibration)(rows[:3])
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.std, again.std)


def test_a_second_evaluation_comes_closer_to_the_phantoms(calibration, reconstructor, rows, phantoms):
    once = Reconstructor(calibration, evaluations=1)(rows)
    assert psnr(reconstructor(rows).image, phantoms).mean() > psnr(once.image, phantoms).mean()


def test_batches_and_threads_do_not_matter(calibration, rows):
    whole = Reconstructor(calibration, threads=1)(rows).image
    parts = Reconstructor(calibration, threads=2).stream([rows[:1], rows[1:6], rows[6:]])
    np.testing.assert_allclose(np.concatenate([out.image for out in parts]), whole, atol=1e-5 * whole.max())


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
def test_every_sampler_draws_images_that_look_like_the_phantom(reconstructor, rows, phantoms, sampler, sde):
    steps = {"dpm": 5, "heun": 4, "euler-maruyama": 40, "predictor-corrector": 30}[sampler]
    drawn = reconstructor.samples(rows[:1], 2, steps=steps, sampler=sampler, sde=sde)
    assert drawn.shape == (1, 2, 19, 19)
    assert psnr(drawn.mean(axis=1), phantoms[:1]).mean() > 20


def test_the_same_seed_draws_the_same_samples_and_another_seed_other_ones(reconstructor, rows):
    first, again, other = (reconstructor.samples(rows[:1], 2, steps=2, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_images_explain_their_signals(calibration, reconstructor, rows):
    reduced = calibration.reduce(rows)
    image = reconstructor(rows).image.reshape(len(rows), -1)
    residual = reduced.y - image @ calibration.basis * calibration.singular_values
    assert (np.square(residual).mean(axis=1) < 9 * np.square(reduced.noise)).all()


def test_the_uncertainty_covers_the_error_about_as_often_as_it_says(reconstructor, true_rows):
    images = generate(["tumours", "vessels", "regions"], 48, seed=77)
    rows = add_noise(images.reshape(48, -1) @ true_rows.T, 20.0, np.random.default_rng(0))
    out = reconstructor(rows)
    held = np.abs(out.image - images) <= out.half_width(0.95)
    for voxels, most in ((images > 0.1, 0.99), (images <= 0.1, 0.999)):  # empty voxels are easier
        assert 0.88 < held[voxels].mean() < most


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "tpu"},
        {"engine": "abacus"},
        {"precision": "fp8"},
        {"threads": 0},
        {"evaluations": 0},
        {"evaluations": 17},
        {"on_bad_frame": "hope"},
    ],
)
def test_options_out_of_range(calibration, wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        Reconstructor(calibration, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"sampler": "ddim"}, {"sde": "ou"}, {"count": 0}, {"steps": 0}, {"seed": -1}, {"steps": 1001}]
)
def test_options_of_samples_out_of_range(reconstructor, rows, wrong):
    with pytest.raises(InputError, match=str(next(iter(wrong.values())))):
        reconstructor.samples(rows[:1], **wrong)


def test_a_model_that_is_not_there(calibration, tmp_path):
    with pytest.raises(ModelError, match="manifest"):
        Reconstructor(calibration, model=tmp_path)


def test_importing_the_package_is_quick_and_free_of_torch():
    code = "import sys, mpi_fast; assert not {'torch', 'onnxruntime', 'matplotlib', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import sys; from mpi_fast import Reconstructor, Calibration; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_blas_has_one_thread_while_frames_are_reconstructed_and_judged(calibration, rows, monkeypatch):
    """Waiting threads of BLAS take cores from the network; with two, a frame took twice the processor time."""
    seen = []

    def spied(*arguments):
        seen.append({library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"})
        return consistent(*arguments)

    monkeypatch.setattr(module, "consistent", spied)
    with threadpool_limits(limits=2, user_api="blas"):
        Reconstructor(calibration)(rows[:1])
        assert seen == [{1}]
        assert {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"} == {2}
