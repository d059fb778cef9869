"""Expected image quality, from frames simulated through a calibration alone."""

import numpy as np
import pytest

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, ModelError
from mpi_fast.experiment import measure_matrix
from mpi_fast.forecast import forecast, simulated
from mpi_fast.heldout import SCANNERS, phantoms
from mpi_fast.metrics import psnr
from mpi_fast.preprocessing import RowFilter
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner

GRID = 12, 10


@pytest.fixture(scope="module")
def matrix():
    return SCANNERS[0].on(GRID).measure_matrix()


@pytest.fixture(scope="module")
def calibration(matrix):
    return matrix.calibrate()


def test_simulated_frames_say_what_the_reduced_matrix_makes_of_images(calibration):
    images = phantoms(6, 0, GRID)
    rows = simulated(calibration, images, 30.0, np.random.default_rng(1))
    reduced = calibration.reduce(rows)
    np.testing.assert_allclose(reduced.snr_db, 30.0, atol=0.5)
    expected = images.reshape(6, -1) @ calibration.basis * calibration.singular_values
    deviation = (reduced.y - expected) / reduced.noise[:, None]
    assert np.square(deviation).mean() == pytest.approx(1.0, abs=0.25)


def test_better_signals_promise_better_images_and_the_same_again(calibration):
    found = list(forecast(calibration, (10.0, 20.0, 30.0), phantoms=7))
    assert [one.snr_db for one in found] == [10.0, 20.0, 30.0]
    assert np.all(np.diff([one.psnr_db for one in found]) > 1)
    assert all(one.worst_db <= one.psnr_db <= one.best_db and one.phantoms == 7 for one in found)
    assert all(0.8 < one.held <= 1 for one in found)
    assert found[1:2] == list(forecast(calibration, (20.0,), phantoms=7))


def test_it_comes_true_on_frames_that_the_true_scanner_measures(matrix, calibration):
    """Measured with other phantoms of the same families, and signals of the noise-free matrix."""
    (promised,) = forecast(calibration, (20.0,), phantoms=21)
    images = phantoms(21, 5, GRID)
    signals = images.reshape(21, -1) @ matrix.truth[calibration.selection].T
    rng, shape = np.random.default_rng(2), signals.shape
    noise = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    whitened = np.linalg.norm(signals * calibration.weights, axis=1), np.linalg.norm(noise, axis=1)
    signals = signals + noise / calibration.weights * (whitened[0] / whitened[1] / 10)[:, None]
    quality = psnr(Reconstructor(calibration, inspect=False)(signals.astype(np.complex64)).image, images)
    assert promised.psnr_db == pytest.approx(quality.mean(), abs=2.5)


def test_more_phantoms_of_small_grids_and_few_of_large_ones(calibration, monkeypatch):
    monkeypatch.setattr("mpi_fast.forecast.VOXELS", 10 * 120)
    assert [one.phantoms for one in forecast(calibration, (20.0,))] == [10]
    monkeypatch.setattr("mpi_fast.forecast.VOXELS", 1)
    assert [one.phantoms for one in forecast(calibration, (20.0,))] == [3]


def test_volumes_and_lines_of_voxels():
    scanner = Scanner.volume(grid=(5, 6, 7), voxel_size=(3.8e-3, 6.3e-3, 5.4e-3), dividers=(16, 15, 12), sub_voxels=1)
    volume = measure_matrix(scanner, 30.0, np.random.default_rng(0)).calibrate(RowFilter(2.0))
    (found,) = forecast(volume, (20.0,), phantoms=6)
    assert found.psnr_db > 10
    line = np.exp(-np.square(np.arange(9) - np.arange(0, 9, 0.5)[:, None])) + 0j
    calibration = Calibration.from_arrays(line[None], None, (1, 9), (0.01, 0.09), rows=RowFilter(snr_threshold=0))
    (found,) = forecast(calibration, (20.0,), phantoms=21)
    assert 1 <= found.phantoms <= 21  # some phantoms of a plane are empty on the line
    assert np.isfinite(found.psnr_db)


@pytest.mark.parametrize(("arguments", "said"), [({"snrs_db": (np.inf,)}, "SNR"), ({"phantoms": 0}, "0 phantoms")])
def test_what_is_no_number_is_refused(calibration, arguments, said):
    with pytest.raises(InputError, match=said):
        list(forecast(calibration, **arguments))


def test_a_model_that_is_none_is_refused(calibration, tmp_path):
    with pytest.raises(ModelError, match="not a model bundle"):
        list(forecast(calibration, model=tmp_path))


def test_a_grid_that_shows_nothing_is_said(calibration, monkeypatch):
    monkeypatch.setattr("mpi_fast.heldout.phantoms", lambda count, *_: np.zeros((count, *GRID), np.float32))
    with pytest.raises(InputError, match="12 x 10 voxels: no phantom has anything to show"):
        list(forecast(calibration))
