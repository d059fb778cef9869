"""Methods on volumes: problems with three axes are solved as accurately as those of planes."""

import gc
from dataclasses import replace

import numpy as np
import pytest

from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.likelihood import Likelihood, signal_scale
from mpi_fast.methods import create
from mpi_fast.methods.base import once_per_calibration
from mpi_fast.methods.variation import TotalVariation, gradient, gradient_transposed
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

GRID = (4, 6, 5)
CLASSICAL = "art", "tikhonov", "nnls", "l1", "tv", "nonconvex"


@pytest.fixture(scope="module")
def volume():
    """The calibration of a small volume, and spectra and truth of a few phantoms."""
    scanner = Scanner.volume(
        grid=GRID,
        voxel_size=(2.5e-3, 4e-3, 5e-3),
        dividers=(16, 15, 12),
        base_frequency=1.25e6,
    )
    matrix = measure_matrix(scanner, 30.0, np.random.default_rng(0))
    calibration = matrix.calibrate()
    truth = generate(["boxes", "tumours", "aneurysms"], 3, GRID, 1, (0.5, 0.8))
    return calibration, Receiver(matrix, calibration.selection, 25.0, np.random.default_rng(1)).frames(truth), truth


@pytest.mark.parametrize("name", CLASSICAL)
def test_images_follow_the_signals(name, volume):
    calibration, signals, truth = volume
    method = create(name, calibration)
    found = method(signals).image
    assert found.shape == truth.shape
    assert found.dtype == np.float32
    assert (found >= 0).all()
    assert psnr(found, truth).mean() > psnr(np.zeros_like(truth), truth).mean() + 3
    np.testing.assert_allclose(method(1e-3 * signals).image, 1e-3 * found, rtol=1e-2, atol=1e-5 * found.max())


@pytest.mark.parametrize("name", ["art", "tikhonov", "nnls", "l1"])
def test_methods_without_neighbours_do_not_ask_how_voxels_lie(name, volume):
    calibration, signals, truth = volume
    row = replace(calibration, grid=(1, calibration.num_voxels), field_of_view=(1.0, 1.0))
    expected = create(name, row)(signals).image
    np.testing.assert_array_equal(create(name, calibration)(signals).image, expected.reshape(truth.shape))


@pytest.mark.parametrize("smoothness", [0.5, 5.0])
def test_total_variation_is_that_of_a_primal_dual_method_in_double_precision(smoothness, volume):
    calibration, signals, _ = volume
    reduced = calibration.reduce(calibration.rows(signals[:1]))
    scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
    likelihood = Likelihood(
        reduced.y / scale[:, None], calibration.singular_values, calibration.basis, reduced.noise / scale
    )
    found = TotalVariation(calibration, smoothness, iterations=3000).solve(likelihood)
    forward = (calibration.singular_values[:, None] * calibration.basis.T).astype(np.float64)
    for image, y, noise in zip(found, likelihood.y, likelihood.noise, strict=True):
        matrix, signal = forward / noise, y / np.float64(noise)

        def objective(x, matrix=matrix, signal=signal):
            slopes = gradient(x.reshape(1, *GRID))
            return ((matrix @ x - signal) ** 2).sum() / 2 + smoothness * np.sqrt((slopes**2).sum(axis=0)).sum()

        expected = chambolle_pock(matrix, signal, smoothness)
        least = objective(expected)
        assert objective(image.astype(np.float64)) == pytest.approx(least, rel=1e-4)
        np.testing.assert_allclose(image, expected, atol=0.02 * expected.max())


def chambolle_pock(matrix, signal, smoothness, iterations=12_000):
    """The minimum by "A first-order primal-dual algorithm" (J. Math. Imaging Vis. 2011), algorithm 1, in float64.

    The proximal step solves the data term exactly. The dual variables belong to the slopes and, for x >= 0, to the
    voxels. This operator has a norm of at most sqrt(12 + 1), and the product of the step lengths is 1 / 13.
    """
    voxels, tau = matrix.shape[1], 0.3
    sigma = 1 / (13 * tau)
    inverse = np.linalg.inv(np.eye(voxels) + tau * matrix.T @ matrix)
    back = tau * matrix.T @ signal
    x = ahead = np.zeros(voxels)
    field, negative = np.zeros((3, 1, *GRID)), np.zeros(voxels)
    for _ in range(iterations):
        field += sigma * gradient(ahead.reshape(1, *GRID))
        field /= np.maximum(1, np.sqrt((field**2).sum(axis=0)) / smoothness)
        negative = np.minimum(negative + sigma * ahead, 0)
        moved = inverse @ (x - tau * (gradient_transposed(field).ravel() + negative) + back)
        ahead, x = 2 * moved - x, moved
    return np.maximum(x, 0)


def test_what_is_computed_for_a_calibration_is_computed_once_and_forgotten_with_it(volume):
    calls = []

    @once_per_calibration
    def count(calibration):
        calls.append(calibration.rank)
        return object()

    first, other = replace(volume[0]), replace(volume[0])
    assert count(first) is count(first)
    assert len(calls) == 1
    assert count(other) is not count(volume[0])
    assert len(calls) == 3
    del first, other
    gc.collect()
    assert count(volume[0]) is count(volume[0])
    assert len(calls) == 3
