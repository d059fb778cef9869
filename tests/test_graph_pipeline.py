"""The network of one bundle serves every calibration, planes and volumes of any grid."""

from math import prod

import numpy as np
import pytest
import torch
from exported import checkpoint, measured

from mpi_fast.bundle import PLANE, VOLUME, Bundle, write_bundle
from mpi_fast.errors import InputError, ModelError
from mpi_fast.export.artefacts import random_cases
from mpi_fast.export.frame import Frame, scale_and_presence
from mpi_fast.export.parity import TOLERANCE, compared
from mpi_fast.methods import create
from mpi_fast.metrics import psnr
from mpi_fast.pipelines.graph import VOXELS, PosteriorGraph
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.training.checkpoint import load_trained

GRIDS = [(8, 8), (13, 26), (31, 10), (4, 64), (5, 6, 7), (9, 4, 4), (1, 9, 11)]


@pytest.fixture(scope="module")
def bundle(exported):
    return exported


def test_the_graphs_are_the_network(bundle, tmp_path):
    other = Frame(load_trained(checkpoint(tmp_path / "other.pt", std=0.051)).network).eval()
    for name in (PLANE, VOLUME):
        assert all(one["relative"] > TOLERANCE for one in compared(other, name, bundle.read(name), random_cases(name)))
    assert all(one["passed"] for one in bundle.manifest["parity"])
    assert all(one["relative"] <= TOLERANCE for one in bundle.manifest["parity"] if "fp16" not in one["artefact"])


@pytest.mark.parametrize("grid", GRIDS)
def test_one_bundle_serves_every_grid_as_the_network_does(bundle, grid):
    calibration, rows, _ = measured(grid)
    out = Reconstructor(calibration, bundle.path, evaluations=1)(rows)
    assert out.image.shape == out.std.shape == (3, *grid)
    reduced = calibration.reduce(rows)
    basis = torch.from_numpy(calibration.basis.reshape((1,) * (3 - len(grid)) + grid + (-1,)))
    network = Frame(load_trained(bundle.checkpoint()).network)
    with torch.inference_mode():
        given = map(torch.from_numpy, (reduced.y, reduced.noise, calibration.singular_values))
        found = network(*given, basis, torch.zeros(3, *basis.shape[:3]), torch.zeros(3))
    image, std, quantiles = (tensor.numpy() for tensor in found)
    made = PosteriorGraph(calibration, bundle, evaluations=1)(rows).image
    np.testing.assert_allclose(made, image.reshape(3, -1), atol=1e-4 * float(image.max()))
    np.testing.assert_allclose(out.std, std.reshape(3, *grid), rtol=1e-3)
    np.testing.assert_allclose(out.half_width(0.5), quantiles[:, 0].reshape(3, *[1] * len(grid)) * out.std, rtol=1e-3)
    np.testing.assert_allclose(out.half_width(0.95), quantiles[:, 1].reshape(3, *[1] * len(grid)) * out.std, rtol=1e-3)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_second_evaluation_is_shown_the_first_ones_image(bundle, grid):
    calibration, rows, _ = measured(grid)
    rows[1] = 0
    reduced = calibration.reduce(rows)
    basis = torch.from_numpy(calibration.basis.reshape((1,) * (3 - len(grid)) + grid + (-1,)))
    given = [torch.from_numpy(array) for array in (reduced.y, reduced.noise, calibration.singular_values)]
    network = Frame(load_trained(bundle.checkpoint()).network)
    noisy, precision = torch.zeros(3, *basis.shape[:3]), torch.zeros(3)
    scale, _ = scale_and_presence(given[0], given[1][:, None], given[2])
    with torch.inference_mode():
        for _ in range(3):
            image, std, _ = network(*given, basis, noisy, precision)
            square = std.square().mean(dim=(1, 2, 3))
            noisy, precision = image, torch.where(square > 0, scale[:, 0].square() / square, 0.0)
    out = PosteriorGraph(calibration, bundle, evaluations=3)(rows)
    np.testing.assert_allclose(out.image, image.reshape(3, -1), atol=1e-3 * float(image.max()))
    np.testing.assert_allclose(out.std, std.reshape(3, -1), rtol=1e-2)
    with pytest.raises(InputError, match="evaluations 0: expected a whole number from 1 to 16"):
        Reconstructor(calibration, bundle.path, evaluations=0)


def test_images_scale_with_their_signals_and_know_no_batch(bundle):
    calibration, rows, _ = measured((9, 8))
    reconstruct = Reconstructor(calibration, bundle.path)
    out, louder = reconstruct(rows), reconstruct(1000 * rows)
    np.testing.assert_allclose(louder.image, 1000 * out.image, rtol=1e-3, atol=0.1 * out.image.max())
    np.testing.assert_allclose(louder.std, 1000 * out.std, rtol=1e-3)
    np.testing.assert_allclose(louder.noise_floor, 1000 * out.noise_floor, rtol=1e-3)
    alone = np.concatenate([reconstruct(rows[index : index + 1]).image for index in range(3)])
    np.testing.assert_allclose(alone, out.image, atol=1e-4 * out.image.max())
    assert len(reconstruct(rows[:0])) == 0


def test_frames_without_particles_are_empty(bundle):
    calibration, rows, _ = measured((9, 8))
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((64, calibration.num_rows)) + 1j * rng.standard_normal((64, calibration.num_rows))
    noise[0] = 0
    out = Reconstructor(calibration, bundle.path, inspect=False)((np.abs(rows).mean() * noise).astype(np.complex64))
    assert not out.image.any()
    assert np.isfinite(out.std).all()
    assert np.isfinite(out.noise_floor).all()


def test_engines_that_there_are_not(bundle):
    with pytest.raises(InputError, match="expected one of auto, onnx, tensorrt"):
        Reconstructor(measured((9, 8))[0], bundle.path, engine="torch")


def test_a_bundle_without_one_of_its_graphs_is_none(bundle, tmp_path):
    with pytest.raises(ModelError, match=r"incomplete manifest \(KeyError: 'volume.onnx'\)"):
        write_bundle(tmp_path / "half", bundle.manifest, {PLANE: bundle.read(PLANE)})


@pytest.mark.parametrize("grid", [(16, 21), (8, 8)])
def test_the_packaged_network_improves_on_what_the_signals_alone_say(grid):
    """Tested on a scanner and phantoms that were not used in training."""
    calibration, rows, truth = measured(grid)
    reconstruct = Reconstructor(calibration)
    linear = create("tikhonov", calibration)(calibration.reduce(rows)).image
    gain = psnr(reconstruct(rows).image, truth) - psnr(linear, truth)
    assert gain.min() > 0
    assert gain.mean() > 3


def test_the_packaged_bundle_is_whole_and_made_from_its_checkpoint():
    opened = Bundle.open()
    assert all(opened.read(file) for file in opened.manifest["files"])
    opened.checkpoint()


def test_images_do_not_depend_on_the_number_of_threads(bundle):
    calibration, rows, _ = measured((9, 8))
    many = np.tile(rows, (120, 1)) * np.linspace(1, 2, 360)[:, None].astype(np.float32)
    alone, shared = (Reconstructor(calibration, bundle.path, threads=threads)(many) for threads in (1, 3))
    assert len(many) > VOXELS // prod(calibration.grid)  # more than one part
    for name in ("image", "std", "quantiles", "snr_db", "noise_floor"):
        np.testing.assert_array_equal(getattr(shared, name), getattr(alone, name))


@pytest.mark.parametrize("grid", [(9, 8), (5, 6, 7)])
def test_samples_know_neither_batch_nor_call_but_their_seed(bundle, grid):
    calibration, rows, _ = measured(grid)
    reconstruct = Reconstructor(calibration, bundle.path)
    drawn = reconstruct.samples(rows, 4, steps=3)
    assert drawn.shape == (3, 4, *grid)
    assert np.isfinite(drawn).all()
    np.testing.assert_array_equal(reconstruct.samples(rows[1:2], 4, steps=3)[0], drawn[1])
    other = reconstruct.samples(rows, 4, steps=3, seed=1)
    assert not np.allclose(other, drawn)
    louder = reconstruct.samples(1000 * rows, 4, steps=3)
    np.testing.assert_allclose(louder, 1000 * drawn, rtol=1e-2, atol=1e-2 * louder.max())
    for sampler, sde in (("heun", "ve"), ("euler-maruyama", "vp"), ("predictor-corrector", "sub-vp")):
        assert np.isfinite(reconstruct.samples(rows[:1], 2, sampler=sampler, sde=sde, steps=3)).all()


def test_samples_of_silence_and_none_at_all(bundle):
    calibration, rows, _ = measured((9, 8))
    assert not Reconstructor(calibration, bundle.path).samples(0 * rows, 2, steps=2).any()
    with pytest.raises(InputError, match="samples 0"):
        Reconstructor(calibration, bundle.path).samples(rows, 0)


def test_samples_of_the_packaged_network_are_of_the_posterior_distribution():
    """Each sample explains the signals within their noise; their spread agrees with the uncertainty of the image."""
    calibration, rows, truth = measured((19, 19))
    reconstruct = Reconstructor(calibration, inspect=False)
    out, drawn = reconstruct(rows), reconstruct.samples(rows, 16)
    reduced = calibration.reduce(rows)
    left = reduced.y[:, None] - drawn.reshape(3, 16, -1) @ calibration.basis * calibration.singular_values
    misfit = np.square(left).sum(axis=2) / (calibration.rank * np.square(reduced.noise[:, None]))
    assert (np.abs(np.log(misfit)) < np.log(2)).all()
    assert np.abs(drawn - drawn.mean(axis=1, keepdims=True)).max() > 0
    spread = np.sqrt(drawn.var(axis=1).mean() / np.square(out.std).mean())
    assert 0.25 < spread < 4  # for easy phantoms the network overestimates its errors
    off = np.sqrt(np.square(drawn.mean(axis=1) - truth).mean(axis=(1, 2)))
    assert (off < 1.2 * np.sqrt(np.square(out.image - truth).mean(axis=(1, 2)))).all()
