import numpy as np
import pytest
from mdf_files import change

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.experiment import MeasuredMatrix, Receiver, acquisition_of, measure_matrix, save_frames, save_matrix
from mpi_fast.mdf import MeasurementFile, SystemMatrixFile, write_measurement
from mpi_fast.pairing import MeasuredRows, check_pairing, image_grid
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

SNR_DB = 30.0
FRAMES = 70  # more than a chunk


@pytest.fixture(scope="module")
def matrix() -> MeasuredMatrix:
    return measure_matrix(Scanner(grid=(6, 7), sub_voxels=1), 20.0, np.random.default_rng(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, matrix):
    folder = tmp_path_factory.mktemp("pair")
    save_matrix(folder / "sm.mdf", matrix)
    return folder


@pytest.fixture(scope="module")
def calibration(folder):
    return Calibration.from_mdf(folder / "sm.mdf")


@pytest.fixture(scope="module")
def images():
    return generate("dots", FRAMES, (6, 7), seed=1)


@pytest.fixture
def measurement(tmp_path, matrix, calibration, images):
    path = tmp_path / "m.mdf"
    receiver = Receiver(matrix, calibration.selection, SNR_DB, np.random.default_rng(2), feed_through=True)
    save_frames(path, receiver, images, background=200)
    return path


def rows_of(path, calibration, *arguments, **options):
    with MeasurementFile(path) as file:
        rows = MeasuredRows(file, calibration, *arguments, **options)
        read = np.concatenate(list(rows))
        assert len(read) == rows.num_frames
        return read


def test_the_rows_are_those_of_the_phantoms_at_the_given_snr(measurement, matrix, calibration, images):
    clean = images.reshape(FRAMES, -1) @ matrix.truth[calibration.selection].T
    seen = np.linalg.norm(clean, axis=1) > 0
    noise = (rows_of(measurement, calibration) - clean)[seen]
    snr_db = 20 * np.log10(np.linalg.norm(clean[seen], axis=1) / np.linalg.norm(noise, axis=1))
    assert np.median(snr_db) == pytest.approx(SNR_DB, abs=0.2)  # the mean background adds a little noise


def test_the_background_is_subtracted_unless_told_otherwise(measurement, calibration):
    with MeasurementFile(measurement) as file:
        assert MeasuredRows(file, calibration).background_subtracted
        assert not MeasuredRows(file, calibration, background=False).background_subtracted
        mean = file.background_mean()[calibration.selection]
    raw = rows_of(measurement, calibration, background=False)
    np.testing.assert_allclose(rows_of(measurement, calibration), raw - mean, rtol=1e-5, atol=1e-6 * np.abs(raw).max())


def test_a_saved_matrix_calibrates_like_the_one_in_memory(matrix, calibration, folder):
    in_memory = matrix.calibrate()
    np.testing.assert_array_equal(calibration.selection, in_memory.selection)
    np.testing.assert_allclose(calibration.singular_values, in_memory.singular_values, rtol=1e-5)
    with SystemMatrixFile(folder / "sm.mdf") as file:
        assert image_grid(calibration).center == file.grid().center
        assert image_grid(calibration).extent == file.grid().extent


def test_ranges_and_averages(measurement, calibration):
    everything = rows_of(measurement, calibration)
    close = {"rtol": 1e-4, "atol": 1e-6 * np.abs(everything).max()}
    np.testing.assert_allclose(rows_of(measurement, calibration, 5, 9), everything[5:9], **close)
    np.testing.assert_allclose(rows_of(measurement, calibration, average="all")[0], everything.mean(axis=0), **close)
    pairs = everything[:69].reshape(23, 3, -1).mean(axis=1)
    np.testing.assert_allclose(rows_of(measurement, calibration, average=3, chunk=4), pairs, **close)


def selected(path, measurement, matrix, index):
    """Store only some frequencies, in another order."""
    with MeasurementFile(measurement) as file:
        spectra, empty = (np.concatenate(list(read())) for read in (file.frames, file.background_frames))
    options = {"acquisition": acquisition_of(matrix.scanner), "frequency_index": index}
    write_measurement(path, spectra[..., index], background=empty[..., index], **options)
    return path


def test_selected_frequencies_find_their_rows(tmp_path, measurement, matrix, calibration):
    index = np.random.default_rng(3).permutation(np.flatnonzero(calibration.selection.any(axis=0)))
    stored = selected(tmp_path / "selected.mdf", measurement, matrix, index)
    np.testing.assert_array_equal(rows_of(stored, calibration), rows_of(measurement, calibration))


def test_a_missing_frequency_is_named(tmp_path, measurement, matrix, calibration):
    used = np.flatnonzero(calibration.selection.any(axis=0))
    stored = selected(tmp_path / "selected.mdf", measurement, matrix, used[1:])
    with pytest.raises(MismatchError, match=rf"without 1 of .* {calibration.frequencies[used[0]] / 1e3:.6g} kHz"):
        rows_of(stored, calibration)


def test_drive_strength_may_differ_by_less_than_a_percent(measurement, calibration):
    strength = np.full((1, 2, 1), 12e-3)
    change(measurement, {"/acquisition/drivefield/strength": 1.005 * strength})
    rows_of(measurement, calibration)
    change(measurement, {"/acquisition/drivefield/strength": 1.02 * strength})
    with pytest.raises(MismatchError, match=r"strength 12\.24 x 12\.24 mT, but the calibration has 12 x 12 mT"):
        rows_of(measurement, calibration)


def test_a_calibration_from_arrays_is_checked_for_its_shape_alone(measurement, matrix):
    change(measurement, {"/acquisition/drivefield/strength": np.full((1, 2, 1), 1.0)})
    with MeasurementFile(measurement) as file:
        check_pairing(file, matrix.calibrate())
        narrow = Calibration.from_arrays(matrix.truth[:2], matrix.scanner.frequencies, (6, 7), (0.012, 0.014))
        with pytest.raises(MismatchError, match=r"3 receive channels and 1632 samples per period, but .* 2 and 1632"):
            check_pairing(file, narrow)


def test_nan_in_frames_and_background(measurement, calibration):
    with MeasurementFile(measurement) as file:
        frames, empty = (np.concatenate(list(read())) for read in (file.frames, file.background_frames))
        acquisition = file.acquisition
    frames[67] = np.nan
    write_measurement(measurement, frames, acquisition=acquisition, background=empty)
    with pytest.raises(InputError, match="NaN or Inf in frame 67"):
        rows_of(measurement, calibration, on_bad_frame="stop")
    rows = rows_of(measurement, calibration)
    np.testing.assert_array_equal(np.flatnonzero(~np.isfinite(rows).all(axis=1)), [67])
    write_measurement(measurement, frames[:5], acquisition=acquisition, background=empty * np.nan)
    with pytest.raises(InputError, match="background"):
        rows_of(measurement, calibration)
