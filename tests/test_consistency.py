"""Images that do not explain their signals are corrected; others stay unchanged."""

import numpy as np
import pytest
from scipy.optimize import nnls as lawson_hanson

from mpi_fast import consistency
from mpi_fast.calibration import Calibration
from mpi_fast.consistency import UNEXPLAINED, consistent
from mpi_fast.forecast import simulated
from mpi_fast.heldout import SCANNERS, phantoms
from mpi_fast.nonnegative import nnls
from mpi_fast.preprocessing import RowFilter
from mpi_fast.reconstructor import Reconstructor

GRID = 8, 8


@pytest.fixture(scope="module")
def calibration():
    """A calibration of twelve smooth functions, like those of a few coils, unlike the scanners of the training."""
    x = np.linspace(-1, 1, 8)
    rng = np.random.default_rng(0)
    bumps = [
        np.outer(np.exp(-2 * (x - a) ** 2), np.exp(-2 * (x - b) ** 2)).ravel() for a, b in rng.uniform(-1, 1, (12, 2))
    ]
    noise = 1e-4 * (rng.standard_normal((20, 64)) + 1j * rng.standard_normal((20, 64)))
    mixture = rng.standard_normal((20, 12)) + 1j * rng.standard_normal((20, 12))
    matrix = mixture @ np.array(bumps) + noise
    return Calibration.from_arrays(matrix[None], None, GRID, (0.08, 0.08), rows=RowFilter(snr_threshold=0))


def unexplained(calibration, rows, image):
    """Residual energy of each frame, divided by that of the noise."""
    reduced = calibration.reduce(rows)
    left = reduced.y - (image.reshape(len(image), -1) @ calibration.basis) * calibration.singular_values
    return np.square(left / reduced.noise[:, None]).mean(axis=1)


@pytest.mark.parametrize("mu", [0.01, 1.0])
def test_the_solution_around_an_image_is_that_of_lawson_and_hanson(mu):
    rng = np.random.default_rng(1)
    forward, y, centre = rng.standard_normal((10, 30)), rng.standard_normal(10), rng.standard_normal(30)
    stacked = np.concatenate([forward, np.sqrt(mu) * np.eye(30)])
    expected, _ = lawson_hanson(stacked, np.concatenate([y, np.sqrt(mu) * centre]))
    found = nnls(forward, y, mu, centre)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    assert 0 < (found > 0).sum() < 30


def test_images_that_do_not_explain_their_signals_become_those_that_do(calibration):
    truth = phantoms(7, 0, GRID)
    rows = simulated(calibration, truth, 40.0, np.random.default_rng(0))
    image = np.roll(truth, 1, axis=2).reshape(7, -1)  # shifted by a voxel
    std = np.full_like(image, 0.1)
    before = unexplained(calibration, rows, image)
    assert (before > UNEXPLAINED).all()
    found = consistent(calibration, rows, image, std)
    assert (unexplained(calibration, rows, found) < 3).all()
    assert found.min() >= 0
    assert found.dtype == np.float32
    np.testing.assert_array_equal(image, np.roll(truth, 1, axis=2).reshape(7, -1))  # the argument is not changed
    for factor in (np.float32(3), np.float32(1e-24)):
        again = consistent(calibration, factor * rows, factor * image, factor * std) / factor
        np.testing.assert_allclose(again, found, rtol=1e-4, atol=1e-4)


def test_voxels_that_are_certain_keep_their_values(calibration):
    truth = phantoms(1, 0, GRID)
    rows = simulated(calibration, truth, 30.0, np.random.default_rng(0))
    image = (truth + 0.5).reshape(1, -1)
    certain = np.arange(64) % 2 == 0
    std = np.where(certain, 1e-6, 1.0).astype(np.float32)[None]
    found = consistent(calibration, rows, image, std)
    change = np.abs(found - image)[0]
    assert change[certain].max() < 0.05 * change[~certain].max()


def test_images_that_explain_their_signals_are_left_alone_and_so_are_empty_ones(calibration):
    truth = phantoms(7, 0, GRID)
    truth[3] = 0
    rows = simulated(calibration, truth, 30.0, np.random.default_rng(0))
    image, std = truth.reshape(7, -1), np.full((7, 64), 0.1, np.float32)
    assert consistent(calibration, rows, image, std) is image
    image[5] += 1
    found = consistent(calibration, rows, image, std)
    changed = (found != image).any(axis=1)
    assert changed.tolist() == [False] * 5 + [True, False]
    empty = np.zeros_like(image)
    assert consistent(calibration, rows, empty, std) is empty


def test_large_volumes_are_left_alone(calibration, monkeypatch):
    rows = simulated(calibration, phantoms(1, 0, GRID), 30.0, np.random.default_rng(0))
    image, std = np.ones((1, 64), np.float32), np.ones((1, 64), np.float32)
    assert consistent(calibration, rows, image, std) is not image
    monkeypatch.setattr(consistency, "LARGEST", 100)
    assert consistent(calibration, rows, image, std) is image


def test_a_reconstruction_explains_its_signals_on_a_scanner_that_no_network_has_seen(calibration, monkeypatch):
    usual = 3.0  # a low limit, so that images are corrected although the network is good
    monkeypatch.setattr(consistency, "UNEXPLAINED", usual)
    rows = simulated(calibration, phantoms(21, 1, GRID), 45.0, np.random.default_rng(0))
    out = Reconstructor(calibration)(rows)
    network = out.misfit[:, 2]  # of the images before the correction
    assert (network > usual).any()
    assert unexplained(calibration, rows, out.image).max() <= 1.05 * usual
    monkeypatch.setattr(consistency, "LARGEST", 0)
    alone = Reconstructor(calibration)(rows)
    np.testing.assert_allclose(unexplained(calibration, rows, alone.image), network, rtol=0.02)


@pytest.mark.parametrize("snr_db", [15.0, 35.0])
def test_on_a_scanner_like_those_of_the_training_nothing_changes(snr_db, monkeypatch):
    calibration = SCANNERS[0].on((13, 13)).measure_matrix().calibrate()
    rows = simulated(calibration, phantoms(14, 1, (13, 13)), snr_db, np.random.default_rng(0))
    image = Reconstructor(calibration, inspect=False)(rows).image
    monkeypatch.setattr(consistency, "LARGEST", 0)
    np.testing.assert_array_equal(Reconstructor(calibration, inspect=False)(rows).image, image)
