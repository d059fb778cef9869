"""Comparison of ART with the published iteration, written row by row."""

import numpy as np
import pytest

from mpi_fast.errors import InputError
from mpi_fast.methods.art import Kaczmarz, kaczmarz
from mpi_fast.metrics import psnr
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate


def published_iteration(rows, signal, regularisation, iterations):
    image, dual = np.zeros(rows.shape[1]), np.zeros(len(rows))
    for _ in range(iterations):
        for m in range(len(rows)):
            alpha = signal[m] - rows[m] @ image - np.sqrt(regularisation) * dual[m]
            alpha /= rows[m] @ rows[m] + regularisation
            image = image + alpha * rows[m]
            dual[m] += np.sqrt(regularisation) * alpha
        image = np.where(image < 0, 0.0, image)
    return image


@pytest.mark.parametrize("count", [30, 64, 150])  # less than a block of rows, one, and more than two
@pytest.mark.parametrize("regularisation", [1e-3, 0.7, 50.0])
def test_blocks_and_batches_equal_the_published_iteration(count, regularisation):
    rng = np.random.default_rng(0)
    rows, signals = rng.standard_normal((count, 12)), rng.standard_normal((5, count))
    found = kaczmarz(rows, signals, regularisation, 6)
    expected = [published_iteration(rows, signal, regularisation, 6) for signal in signals]
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_without_constraints_in_play_it_converges_to_the_regularised_solution():
    rng = np.random.default_rng(1)
    rows = np.abs(rng.standard_normal((40, 8)))
    image = rng.uniform(1, 2, 8)
    found = kaczmarz(rows, (rows @ image)[None], 0.1, 3000)
    expected = np.linalg.solve(rows.T @ rows + 0.1 * np.eye(8), rows.T @ (rows @ image))
    np.testing.assert_allclose(found[0], expected, rtol=2e-3)  # it converges slowly


def test_it_reconstructs(calibration, true_rows):
    images = generate("regions", 6, seed=1)
    rows = add_noise(images.reshape(6, -1) @ true_rows.T, 30.0, np.random.default_rng(0))
    found = Kaczmarz(calibration, 0.01, 5)(rows).image
    assert found.shape == images.shape
    assert (found >= 0).all()
    assert psnr(found, images).mean() > psnr(np.zeros_like(images), images).mean() + 5


def test_options_out_of_range(calibration):
    with pytest.raises(InputError):
        Kaczmarz(calibration, 0.0)
    with pytest.raises(InputError):
        Kaczmarz(calibration, 1.0, 0)
