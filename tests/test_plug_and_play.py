"""Plug and play uses the network without signals as its denoiser, on every grid."""

import numpy as np
import pytest
import torch

from mpi_fast import heldout
from mpi_fast.bundle import Bundle, packaged
from mpi_fast.comparison import Setup, frames, measured
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.methods.plug_and_play import SCHEMES, PlugAndPlay
from mpi_fast.methods.tikhonov import Tikhonov
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.pipelines.graph import Prior
from mpi_fast.simulation import Scanner
from mpi_fast.training.checkpoint import load_trained
from mpi_fast.training.combination import Signals

PLANE, VOLUME = (13, 11), (4, 6, 5)


def noisy_images(grid, sigma):
    """Images of root-mean-square one, and the same with noise, (F, N)."""
    images = heldout.phantoms(7, 3, grid).reshape(7, -1)
    images /= np.sqrt(np.square(images).mean(axis=1, keepdims=True))
    return images, (images + sigma * np.random.default_rng(0).standard_normal(images.shape)).astype(np.float32)


@pytest.fixture(scope="module")
def small_volume():
    """The calibration of a small volume, signals and truth."""
    scanner = Scanner.volume(grid=VOLUME, voxel_size=(2.5e-3, 4e-3, 5e-3), dividers=(16, 15, 12), base_frequency=1.25e6)
    matrix = measure_matrix(scanner, 30.0, np.random.default_rng(0))
    calibration = matrix.calibrate()
    truth = generate(["boxes", "tumours", "aneurysms"], 3, VOLUME, 1, (0.5, 0.8))
    return calibration, Receiver(matrix, calibration.selection, 25.0, np.random.default_rng(1)).frames(truth), truth


@pytest.mark.parametrize("sigma", [0.1, 0.5])
@pytest.mark.parametrize("grid", [PLANE, VOLUME])
def test_the_denoiser_is_the_network_of_a_scanner_that_measures_nothing(grid, sigma):
    images, noisy = noisy_images(grid, sigma)
    frames, voxels = images.shape
    network = load_trained(packaged().with_suffix(".pt")).network.eval()
    nothing = Signals.of(torch.zeros(1, frames, 1), torch.ones(1, frames), torch.zeros(1, 1), torch.zeros(1, voxels, 1))
    with torch.inference_mode():
        level = torch.full((1, frames), sigma**-2)
        expected = network(nothing, (1,) * (3 - len(grid)) + grid, torch.from_numpy(noisy)[None], level).image[0]
    found = Prior(Bundle.open(), grid, threads=1).of_frames(frames)(noisy, sigma)
    error = np.square(np.maximum(expected.numpy(), 0) - images).mean()
    assert np.square(found - images).mean() == pytest.approx(error, rel=0.05)
    assert error < 0.6 * sigma**2


def test_the_denoiser_keeps_frames_apart():
    _, noisy = noisy_images(PLANE, 0.3)
    prior = Prior(Bundle.open(), PLANE, threads=1)
    alone = prior.of_frames(1)(noisy[2:3], 0.3)
    np.testing.assert_allclose(prior.of_frames(len(noisy))(noisy, 0.3)[2:3], alone, atol=1e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("grid", [(19, 19), PLANE])
def test_it_improves_on_the_linear_estimate(scheme, grid):
    setup = Setup(grid=grid, phantoms=7)
    calibration, (signals, truth) = measured(setup.heldout)[1], frames(setup, 25.0)
    found = PlugAndPlay(calibration, scheme, level=0.2, threads=1)(signals).image
    linear = Tikhonov(calibration, "prior")(signals).image
    assert psnr(found, truth).mean() > psnr(linear, truth).mean() + 2


def test_it_improves_on_the_linear_estimate_of_volumes(small_volume):
    calibration, signals, truth = small_volume
    found = PlugAndPlay(calibration, level=0.2, iterations=8, threads=1)(signals).image
    assert found.shape == truth.shape
    assert psnr(found, truth).mean() > psnr(Tikhonov(calibration, "prior")(signals).image, truth).mean() + 2
