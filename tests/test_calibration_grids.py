"""Calibrations of lines, planes of any ratio, whole volumes, and planes of volumes."""

import numpy as np
import pytest

from mpi_fast.calibration import Calibration
from mpi_fast.errors import FileFormatError, InputError
from mpi_fast.experiment import MeasuredMatrix, measure_matrix, save_matrix
from mpi_fast.inspection import Inspection
from mpi_fast.mdf import SystemMatrixFile
from mpi_fast.misfit import MisfitMeter
from mpi_fast.pairing import image_grid
from mpi_fast.phantoms import generate
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner

GRID = 5, 6, 7
ANY_ROW = RowFilter(snr_threshold=0.0, min_frequency=0.0)


@pytest.fixture(scope="module")
def volume() -> MeasuredMatrix:
    scanner = Scanner.volume(grid=GRID, voxel_size=(2e-3, 4e-3, 5e-3), dividers=(16, 15, 12), sub_voxels=1)
    return measure_matrix(scanner, 40.0, np.random.default_rng(0))


@pytest.fixture
def path(volume, tmp_path):
    save_matrix(tmp_path / "sm.mdf", volume)
    return tmp_path / "sm.mdf"


def test_a_volume_is_calibrated_as_a_whole(volume, path):
    calibration = Calibration.from_mdf(path, snr_threshold=2.0)
    assert calibration.grid == GRID
    assert calibration.field_of_view == pytest.approx((10e-3, 24e-3, 35e-3))
    assert calibration.num_voxels == 210
    grid = image_grid(calibration)
    assert (grid.normal, grid.axes, grid.size, grid.shape) == ("", "zyx", (7, 6, 5), GRID)
    assert grid.extent == pytest.approx((35e-3, 24e-3, 10e-3))
    # The reduced signals of a voxel agree with the factors.
    truth = volume.truth[calibration.selection]
    reduced = calibration.reduce(truth.T.astype(np.complex64))
    expected = calibration.basis * calibration.singular_values
    assert np.linalg.norm(reduced.y - expected) < 0.05 * np.linalg.norm(expected)


def test_volumes_in_memory_are_those_of_files(volume, path):
    options = {"snr_threshold": 2.0}
    found, expected = volume.calibrate(RowFilter(**options)), Calibration.from_mdf(path, **options)
    assert (found.grid, found.rank) == (expected.grid, expected.rank)
    assert found.field_of_view == pytest.approx(expected.field_of_view)
    np.testing.assert_array_equal(found.basis, expected.basis)


@pytest.mark.parametrize(("axis", "index"), [("z", 2), ("y", 0), ("x", 6)])
def test_planes_of_a_volume(volume, path, axis, index):
    """A plane that is read from a file gives the calibration of that plane in memory."""
    place = np.arange(210).reshape(GRID)
    voxels = np.take(place, index, "zyx".index(axis))
    found = Calibration.from_mdf(path, plane=(axis, index), snr_threshold=2.0)
    assert found.grid == voxels.shape
    expected = Calibration.from_arrays(
        volume.foreground[..., voxels.reshape(-1)],
        volume.frequencies,
        voxels.shape,
        found.field_of_view,
        background=volume.background,
        order=(volume.foreground_index[voxels.reshape(-1)], volume.background_index),
        rows=RowFilter(2.0),
    )
    np.testing.assert_array_equal(found.selection, expected.selection)
    np.testing.assert_array_equal(found.singular_values, expected.singular_values)
    np.testing.assert_array_equal(found.basis, expected.basis)
    assert image_grid(found).normal == axis


def test_a_volume_survives_its_file(volume, tmp_path):
    expected = volume.calibrate(RowFilter(2.0))
    expected.save(tmp_path / "scanner.h5")
    found = Calibration.load(tmp_path / "scanner.h5")
    assert (found.grid, found.field_of_view, found.facts) == (expected.grid, expected.field_of_view, expected.facts)
    np.testing.assert_array_equal(found.basis, expected.basis)


def test_a_file_whose_facts_are_of_a_plane(path, tmp_path):
    calibration = Calibration.from_mdf(path, snr_threshold=2.0)
    calibration.facts["normal"] = "z"
    calibration.save(tmp_path / "scanner.h5")
    with pytest.raises(FileFormatError, match=r"facts: normal is 'z' of a grid \[5, 6, 7\]"):
        Calibration.load(tmp_path / "scanner.h5")


def test_frames_of_a_volume_are_inspected(volume):
    calibration = volume.calibrate(RowFilter(2.0))
    images = generate("tumours", 3, GRID, seed=1).reshape(3, -1)
    rows = (images @ volume.truth[calibration.selection].T).astype(np.complex64)
    inspection = Inspection(calibration)
    flags = inspection.check_signals(rows)
    misfit, flags = inspection.check_images(rows, images, flags)
    assert not flags.any()
    assert np.isfinite(misfit.image).all()
    assert 0 < MisfitMeter(calibration).image_leeway < 0.1


@pytest.mark.parametrize("shape", [(8, 8), (26, 13), (48, 64), (4, 128), (9, 3), (9, 1), (1, 9)])
def test_planes_of_any_shape(shape, tmp_path):
    scanner = Scanner(shape, (2e-3, 2e-3), dividers=(16, 15), sub_voxels=1)
    matrix = measure_matrix(scanner, 30.0, np.random.default_rng(0))
    save_matrix(tmp_path / "sm.mdf", matrix)
    calibration = Calibration.from_mdf(tmp_path / "sm.mdf", snr_threshold=2.0)
    assert calibration.grid == shape
    assert 1 <= calibration.rank <= min(np.prod(shape), 2 * calibration.num_rows)
    assert image_grid(calibration).shape == shape
    calibration.save(tmp_path / "scanner.h5")
    assert Calibration.load(tmp_path / "scanner.h5").grid == shape
    rows = calibration.matrix.sum(axis=1)[None]
    image = np.ones((1, np.prod(shape)), np.float32)
    misfit, _ = Inspection(calibration).check_images(rows, image, np.zeros(1, np.uint8))
    assert np.isfinite(misfit.image).all()


@pytest.mark.parametrize(
    ("grid", "lengths", "message"),
    [
        ((3, 2, 2), (0.1, 0.1), "expected three lengths"),
        ((3, 4), (0.1, 0.1, 0.1), "expected two lengths"),
        ((12,), (0.1,), r"grid \(12,\): expected the voxels of a plane"),
        ((3, 2, 0), (0.1, 0.1, 0.1), "expected the voxels of a plane"),
        ((1, 65536), (0.1, 0.1), "up to 65535"),
        *[((3, 4), (length, 0.1), "expected two lengths in m from 1e-06 to 10") for length in (0.0, -0.1, 40.0, 1e-9)],
        ((3, 2, 3), (0.1, 0.1, 0.1), r"3 x 2 x 3 voxels"),
    ],
)
def test_grids_that_do_not_fit(grid, lengths, message):
    matrix = np.ones((1, 20, 12), np.complex64)
    with pytest.raises(InputError, match=message):
        Calibration.from_arrays(matrix, np.arange(20.0), grid, lengths, rows=ANY_ROW)


def test_a_volume_without_depth(path):
    import h5py

    with h5py.File(path, "r+") as file:
        file["/calibration/fieldOfView"][2] = 0.0
    with SystemMatrixFile(path) as file:
        assert file.grid(("z", 1)).extent[2] == 0
        with pytest.raises(FileFormatError, match="is 0 m along z; a size other than zero was expected in the volume"):
            file.grid()


def test_a_field_of_view_in_millimetres(path):
    import h5py

    with h5py.File(path, "r+") as file:
        file["/calibration/fieldOfView"][0] *= 1e3
    with pytest.raises(FileFormatError, match=r"\.mdf: field of view .*: expected three lengths in m"):
        Calibration.from_mdf(path)
