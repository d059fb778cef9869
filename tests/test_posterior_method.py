"""The posterior network as users will run it: one file for every calibration, on planes of any grid."""

from importlib.resources import files

import numpy as np
import pytest
import torch

from mpi_fast.calibration import Calibration
from mpi_fast.export.learned_onnx import difference, learned_onnx
from mpi_fast.export.posterior import Frame
from mpi_fast.methods import create
from mpi_fast.methods.posterior import Posterior
from mpi_fast.metrics import psnr
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner
from mpi_fast.training.checkpoint import Trained, load_trained
from mpi_fast.training.posterior import PosteriorConfig, PosteriorNetwork


def trained(std=0.05):
    """A small network whose every output counts."""
    torch.manual_seed(1)
    network = PosteriorNetwork(PosteriorConfig(blocks=2, width=8, inner=8, embedding=8))
    with torch.no_grad():
        for value in network.parameters():
            value.add_(std * torch.randn(value.shape))
    return Trained(network.eval(), (19, 19), (0.02, 10.0), {"made": "by a test"}, "posterior")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "posterior.onnx"
    path.write_bytes(learned_onnx(trained()))
    return path


def measured(grid):
    """A calibration, and noisy rows of three phantoms."""
    scanner = Scanner(grid=grid, drive_amplitude=(6e-3, 6e-3))
    rows = RowFilter(max_frequency=3e5)
    calibration = Calibration.from_arrays(
        scanner.system_matrix(), scanner.frequencies, grid, scanner.field_of_view, rows=rows
    )
    images = generate(["tumours", "dots", "regions"], 3, grid, seed=2).reshape(3, -1)
    return calibration, add_noise(images @ calibration.matrix.T, 20.0, np.random.default_rng(0))


def test_the_file_is_the_network(model):
    assert difference(trained(), model.read_bytes()) < 1e-4
    assert difference(trained(std=0.051), model.read_bytes()) > 1e-4


@pytest.mark.parametrize("grid", [(8, 8), (13, 26), (19, 19), (31, 10)])
def test_one_file_serves_every_grid(model, grid):
    calibration, rows = measured(grid)
    out = Posterior(calibration, model)(rows)
    assert out.image.shape == out.std.shape == (3, *grid)
    assert out.image.min() >= 0
    assert out.image.max() > 0
    assert (out.std > 0).all()


def test_images_scale_with_their_signals_and_know_no_batch(model):
    calibration, rows = measured((9, 8))
    reconstruct = Posterior(calibration, model)
    out = reconstruct(rows)
    louder = reconstruct(1000 * rows)
    np.testing.assert_allclose(louder.image, 1000 * out.image, rtol=1e-3, atol=0.1 * out.image.max())
    np.testing.assert_allclose(louder.std, 1000 * out.std, rtol=1e-3)
    alone = np.concatenate([reconstruct(rows[index : index + 1]).image for index in range(3)])
    np.testing.assert_allclose(alone, out.image, atol=1e-4 * out.image.max())
    assert len(reconstruct(rows[:0]).image) == 0


def test_frames_without_particles_are_empty(model):
    calibration, rows = measured((9, 8))
    rng = np.random.default_rng(1)
    noise = rng.standard_normal((64, calibration.num_rows)) + 1j * rng.standard_normal((64, calibration.num_rows))
    noise[0] = 0
    out = Posterior(calibration, model)((np.abs(rows).mean() * noise).astype(np.complex64))
    assert not out.image.any()
    assert np.isfinite(out.std).all()


def test_the_checkpoint_in_training_opens_and_improves_on_what_the_signals_alone_say():
    """On a scanner and phantoms that it has never seen."""
    trained_so_far = load_trained(files("mpi_fast") / "models" / "posterior.pt")
    assert isinstance(trained_so_far.network, PosteriorNetwork)
    frame = Frame(trained_so_far.network)
    calibration, rows = measured((16, 21))
    truth = generate(["tumours", "dots", "regions"], 3, (16, 21), seed=2)
    reduced = calibration.reduce(rows)
    basis = torch.from_numpy(calibration.basis.reshape(1, 16, 21, -1))
    with torch.inference_mode():
        image, _ = frame(*map(torch.from_numpy, (reduced.y, reduced.noise, calibration.singular_values)), basis)
    linear = create("tikhonov", calibration)(reduced).image
    gain = psnr(image[:, 0].numpy(), truth) - psnr(linear, truth)
    assert gain.min() > 0
    assert gain.mean() > 3
