"""Simulated measurements of volumes: selected frequencies, noise, and files."""

from dataclasses import replace

import numpy as np
import pytest

from mpi_fast import experiment
from mpi_fast.errors import InputError
from mpi_fast.experiment import Receiver, measure_matrix, row_strength, save_frames, save_matrix
from mpi_fast.heldout import VOLUMES, phantoms
from mpi_fast.mdf import MeasurementFile, SystemMatrixFile
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

GRID = (5, 6, 7)
VOXELS = 5 * 6 * 7


@pytest.fixture(scope="module")
def scanner():
    return Scanner.volume(grid=GRID, dividers=(16, 15, 12), base_frequency=1.25e6)


@pytest.fixture(scope="module")
def whole(scanner):
    return measure_matrix(scanner, 25.0, np.random.default_rng(0))


@pytest.fixture
def strongest(scanner, monkeypatch):
    """A matrix of 121 frequencies, of which 30 fit into the memory limit."""
    monkeypatch.setattr(experiment, "MATRIX_BYTES", 30 * 3 * VOXELS * 8)
    monkeypatch.setattr(experiment, "NOISE_BYTES", 7 * 3 * 250 * 16)
    return measure_matrix(scanner, 25.0, np.random.default_rng(0))


def test_a_matrix_that_fits_is_kept_whole_at_the_snr(whole, scanner):
    np.testing.assert_array_equal(whole.frequency_index, np.arange(121))
    np.testing.assert_array_equal(whole.truth, scanner.system_matrix())
    noise = whole.background - whole.background.mean(axis=2, keepdims=True)  # drift is slow and small in comparison
    band = whole.frequencies >= 80e3
    per_frame = np.linalg.norm(noise[:, band]) / np.sqrt(noise.shape[2])
    signal = np.linalg.norm(whole.truth[:, band]) / np.sqrt(VOXELS)
    assert 20 * np.log10(signal / per_frame) == pytest.approx(25.0, abs=4.0)
    assert len(np.union1d(whole.foreground_index, whole.background_index)) == whole.background.shape[2] + VOXELS


def test_of_a_larger_one_the_strongest_frequencies_are_kept(strongest, whole, scanner):
    assert len(strongest.frequency_index) == 30
    assert strongest.foreground.shape == (3, 30, VOXELS)
    np.testing.assert_allclose(
        strongest.truth, whole.truth[:, strongest.frequency_index], atol=1e-6 * np.abs(whole.truth).max()
    )
    assert strongest.frequencies.min() >= 80e3
    profile = experiment.noise_profile(scanner)
    merit = np.where(scanner.frequencies >= 80e3, (row_strength(scanner) / profile).max(axis=0), 0)
    dropped = np.setdiff1d(np.arange(121), strongest.frequency_index)
    assert merit[dropped].max() <= merit[strongest.frequency_index].min()
    noise = strongest.foreground - strongest.truth
    assert np.linalg.norm(noise) == pytest.approx(
        np.linalg.norm((whole.foreground - whole.truth)[:, strongest.frequency_index]), rel=0.3
    )


def test_a_survey_of_fewer_voxels_shows_how_strong_rows_are(scanner, monkeypatch):
    fine = replace(scanner, grid=(20, 24, 28), voxel_size=tuple(size / 4 for size in scanner.voxel_size))
    monkeypatch.setattr(experiment, "SURVEY", 28)
    exact = row_strength(fine)
    monkeypatch.setattr(experiment, "SURVEY", 11)
    strong = exact > 0.02 * exact.max()
    np.testing.assert_allclose(row_strength(fine)[strong], exact[strong], rtol=0.15)


def test_frames_carry_the_snr_over_the_selected_rows(strongest):
    selection = np.zeros((3, 30), dtype=bool)
    selection[:, ::2] = True
    images = generate("tumours", 3, GRID, seed=1)
    frames = Receiver(strongest, selection, 20.0, np.random.default_rng(1)).frames(images)
    assert frames.shape == (3, 3, 30)
    clean = np.einsum("fn,ckn->fck", images.reshape(3, -1), strongest.truth)
    ratio = np.linalg.norm(clean[:, selection], axis=1) / np.linalg.norm((frames - clean)[:, selection], axis=1)
    np.testing.assert_allclose(20 * np.log10(ratio), 20.0, atol=0.01)


@pytest.mark.parametrize("kind", ["whole", "strongest"])
def test_files_hold_the_volume(request, kind, tmp_path):
    matrix = request.getfixturevalue(kind)
    count = len(matrix.frequency_index)
    save_matrix(tmp_path / "sm.mdf", matrix)
    with SystemMatrixFile(tmp_path / "sm.mdf") as file:
        assert file.size == (7, 6, 5)
        np.testing.assert_allclose(file.volume_extent, (14e-3, 12e-3, 5e-3))
        np.testing.assert_allclose(file.delta_sample_size, (2e-3, 2e-3, 1e-3))
        np.testing.assert_array_equal(file.frequency_index, matrix.frequency_index)
        np.testing.assert_array_equal(file.background_index, matrix.background_index)
        np.testing.assert_allclose(np.diag(file.acquisition.gradient.reshape(3, 3)), (-1.0, -1.0, 2.0))
        plane = file.foreground(file.grid(("z", 3)))
        np.testing.assert_array_equal(plane, matrix.foreground[..., 3 * 42 : 4 * 42].reshape(3 * count, 42))
    receiver = Receiver(matrix, np.ones((3, count), dtype=bool), 20.0, np.random.default_rng(1))
    images = generate("dots", 4, GRID, seed=1)
    save_frames(tmp_path / "m.mdf", receiver, images, background=5, time_domain=False)
    with MeasurementFile(tmp_path / "m.mdf") as file:
        assert len(file.acquisition.drive_frequencies) == 3
        np.testing.assert_array_equal(file.frequency_index, matrix.frequency_index)


def test_samples_need_all_frequencies(strongest, whole, tmp_path):
    images = generate("dots", 2, GRID, seed=1)
    receiver = Receiver(strongest, np.ones((3, 30), dtype=bool), 20.0, np.random.default_rng(1))
    with pytest.raises(InputError, match="30 of 121 frequencies"):
        save_frames(tmp_path / "m.mdf", receiver, images)
    assert not list(tmp_path.iterdir())
    receiver = Receiver(whole, np.ones((3, 121), dtype=bool), 20.0, np.random.default_rng(1))
    save_frames(tmp_path / "m.mdf", receiver, images)
    with MeasurementFile(tmp_path / "m.mdf") as file:
        assert file.acquisition.num_samples == 240


def test_a_measured_volume_calibrates(whole):
    calibration = whole.calibrate()
    assert calibration.grid == GRID
    np.testing.assert_allclose(calibration.field_of_view, whole.scanner.field_of_view)
    assert calibration.basis.shape == (VOXELS, calibration.rank)


def test_held_out_volumes_take_turns():
    volumes = phantoms(len(VOLUMES) + 1, 0, (19, 19, 19), (0.5, 1.0))
    assert volumes.shape == (len(VOLUMES) + 1, 19, 19, 19)
    assert (volumes.reshape(len(volumes), -1).max(axis=1) > 0.02).all()
    assert volumes.max() <= 2.0
