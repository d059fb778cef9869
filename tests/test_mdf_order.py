"""Order of rows, and order and place of voxels, as stated by a file; contradictions are refused."""

import h5py
import numpy as np
import pytest
from mdf_files import CHANNELS, DATA, DRIVE, acquisition, change, convert, measurement, spectra, system_matrix, voltages

from mpi_fast.errors import FileFormatError, FileWarning
from mpi_fast.mdf import (
    Grid,
    MeasurementFile,
    SystemMatrixFile,
    read_reconstruction,
    write_measurement,
    write_reconstruction,
    write_system_matrix,
)

INDEX = np.array([1, 2, 4, 5, 7])
ORDERS = {
    "descending": slice(None, None, -1),
    "shuffled": np.array([3, 0, 4, 1, 2]),
    "rotated": np.array([2, 3, 4, 0, 1]),
}
POSITIONS, FIELD = "/calibration/positions", "/calibration/fieldOfView"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


# -- rows -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
@pytest.mark.parametrize("with_snr", [True, False])
@pytest.mark.parametrize("fast", [True, False])
def test_rows_of_a_matrix_come_ascending(path, order, with_snr, fast):
    matrix, snr = spectra(CHANNELS, 5, 12), np.arange(10.0).reshape(CHANNELS, 5)
    write_system_matrix(
        path,
        matrix[:, order],
        size=(4, 3, 1),
        field_of_view=(0.04, 0.03, 0.01),
        acquisition=acquisition(),
        frequency_index=INDEX[order],
        snr=snr[:, order] if with_snr else None,
    )
    if not fast:
        convert(path, DATA, lambda data: np.moveaxis(data, -1, 0))
        change(path, {"/measurement/isFastFrameAxis": np.int8(0)})
    rows = np.array([7, 0, 4])
    with SystemMatrixFile(path) as file:
        np.testing.assert_array_equal(file.frequency_index, INDEX)
        np.testing.assert_array_equal(file.foreground(file.grid()), matrix.reshape(10, 12))
        np.testing.assert_array_equal(file.foreground(file.grid(), rows), matrix.reshape(10, 12)[rows])
        assert file.snr is None if not with_snr else (file.snr == snr).all()


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_rows_of_a_measurement_come_ascending(path, order):
    frames = spectra(3, 1, CHANNELS, 5)
    write_measurement(path, frames[..., order], acquisition=acquisition(), frequency_index=INDEX[order])
    with MeasurementFile(path) as file:
        np.testing.assert_array_equal(file.frequency_index, INDEX)
        np.testing.assert_array_equal(next(file.frames()), frames[:, 0])


# -- positions --------------------------------------------------------------------------------------------------------


def middles():
    """Positions of the voxels of the test matrix, x fastest: (12, 3)."""
    y, x = np.divmod(np.arange(12), 4)
    return np.stack([((x + 0.5) / 4 - 0.5) * 0.04, ((y + 0.5) / 3 - 0.5) * 0.03, 0.0 * x], -1)


@pytest.mark.parametrize("order", [np.arange(12), np.arange(12)[::-1], np.random.default_rng(0).permutation(12)])
@pytest.mark.parametrize("jitter", [0.0, 0.001])
def test_positions_say_the_order(path, order, jitter):
    matrix, _ = system_matrix(path)
    noise = jitter * np.random.default_rng(1).uniform(-1, 1, (12, 3))
    convert(path, DATA, lambda data: data[..., np.concatenate([order, np.arange(12, 16)])])
    change(path, {POSITIONS: middles()[order] + noise})
    with SystemMatrixFile(path) as file:
        found = file.foreground(file.grid())
        assert file.voxel_order == "as /calibration/positions says"
    np.testing.assert_array_equal(found, matrix.reshape(found.shape))


def test_positions_beside_background_frames_solve_a_meandering_grid(path):
    matrix, _ = system_matrix(path, background_index=None)
    order = np.array([0, 1, 2, 3, 7, 6, 5, 4, 8, 9, 10, 11, 12, 13, 14, 15])
    convert(path, DATA, lambda data: data[..., order])
    change(path, {POSITIONS: np.vstack([middles(), np.full((4, 3), 0.5)])[order]})
    change(path, {"/calibration/isMeanderingGrid": np.int8(1)})
    with SystemMatrixFile(path) as file:
        np.testing.assert_array_equal(file.foreground(file.grid()), matrix.reshape(-1, 12))


def test_positions_alone_say_the_middle(path):
    system_matrix(path)
    change(path, {POSITIONS: middles() + np.array([0.1, 0.2, 0.3]), "/calibration/fieldOfViewCenter": None})
    with SystemMatrixFile(path) as file:
        np.testing.assert_allclose(file.grid().center, (0.1, 0.2, 0.3))


@pytest.mark.parametrize("shift", [(0.005, 0, 0), (-0.3, 0.1, 0.2)])
def test_positions_about_another_middle_say_the_order_still(path, shift):
    """The origin of a robot's coordinates is arbitrary."""
    matrix, _ = system_matrix(path)
    order = np.random.default_rng(0).permutation(12)
    convert(path, DATA, lambda data: data[..., np.concatenate([order, np.arange(12, 16)])])
    change(path, {POSITIONS: middles()[order] + shift, "/calibration/fieldOfViewCenter": np.zeros(3)})
    with SystemMatrixFile(path) as file:
        with pytest.warns(FileWarning, match=r"positions lie about \(.*\) m, but the grid about \(0, 0, 0\) m"):
            grid = file.grid()
        np.testing.assert_array_equal(file.foreground(grid), matrix.reshape(-1, 12))
        assert grid.center == (0, 0, 0)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (1e3 * middles(), r"position 0 is \(-15, -10, 0\) m, no middle"),
        (1.2 * middles(), r"middle of a voxel of the 4 x 3 x 1 voxels in \(0.04, 0.03, 0.01\) m about \(0, 0, 0\) m"),
        (middles()[np.arange(12) // 2], "no position lies in voxel"),
        (middles()[:7], "has 7 positions; the grid has 12 voxels"),
        (middles().T, r"has shape \(3, 12\)"),
        (np.where(np.arange(12)[:, None] == 5, np.nan, middles()), "NaN or Inf"),
    ],
)
def test_positions_that_contradict_the_grid(path, positions, message):
    system_matrix(path)
    change(path, {POSITIONS: positions})
    with SystemMatrixFile(path) as file, pytest.raises(FileFormatError, match=message):
        file.grid()


# -- geometry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signs", [(-1, 1, 1), (1, -1, 1), (-1, -1, 1)])
def test_a_negative_field_of_view_is_a_mirrored_axis(path, signs):
    matrix, _ = system_matrix(path)
    convert(path, FIELD, lambda extent: extent * signs)
    with SystemMatrixFile(path) as file:
        grid = file.grid()
        found = file.foreground(grid).reshape(-1, *grid.shape)
    assert grid.field_of_view == (0.03, 0.04)
    np.testing.assert_array_equal(found, matrix.reshape(-1, 3, 4)[:, :: signs[1], :: signs[0]])


def test_a_mirrored_axis_across_the_plane_counts_from_below(path):
    system_matrix(path, (2, 2, 2), field_of_view=(0.02, 0.02, 0.02))
    change(path, {FIELD: [0.02, 0.02, -0.02]})
    with SystemMatrixFile(path) as file:
        below, above = file.grid(("z", 0)), file.grid(("z", 1))
    assert (below.center[2], above.center[2]) == (-0.005, 0.005)
    assert set(below.voxels) == {4, 5, 6, 7}


def test_a_mirrored_reconstruction(path):
    images = np.arange(12.0).reshape(1, 3, 4)
    write_reconstruction(path, images, Grid.regular((3, 4), (0.03, 0.04)), acquisition())
    change(path, {"/reconstruction/fieldOfView": [-0.04, 0.03, 0.01]})
    np.testing.assert_array_equal(read_reconstruction(path), images[:, :, ::-1])


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_field_of_view_without_size_in_the_plane(path, axis, bad):
    system_matrix(path)
    convert(path, FIELD, lambda extent: np.where(np.arange(3) == axis, bad, extent))
    with SystemMatrixFile(path) as file, pytest.raises(FileFormatError, match=f"fieldOfView is .* along {'xyz'[axis]}"):
        file.grid()


@pytest.mark.parametrize("bad", [0.0, np.nan])
def test_a_plane_need_not_be_thick(path, bad):
    system_matrix(path)
    change(path, {FIELD: [0.04, 0.03, bad]})
    with SystemMatrixFile(path) as file:
        assert file.grid().extent == (0.04, 0.03, 0.0)


def test_a_divider_of_zero_is_a_channel_without_drive(path):
    measurement(path)
    change(path, {f"{DRIVE}/divider": [[102], [96], [0]], f"{DRIVE}/cycle": None})
    for name, value in (("strength", [[[0.012], [0.012], [0.0]]]), ("phase", np.zeros((1, 3, 1)))):
        change(path, {f"{DRIVE}/{name}": value})
    with MeasurementFile(path) as file:
        assert file.acquisition.drive_frequencies == (2.5e6 / 102, 2.5e6 / 96)
        assert file.acquisition.cycle == pytest.approx(652.8e-6)


def test_a_measurement_may_carry_a_lone_calibration_group(path):
    volts = measurement(path)
    change(path, {"/calibration/method": "robot", "/calibration/deltaSampleSize": [0.002, 0.002, 0.001]})
    with MeasurementFile(path) as file:
        np.testing.assert_allclose(next(file.frames()), np.fft.rfft(volts[:6, 0]), rtol=1e-5, atol=1e-5)
    for name in ("size", "positions", "offsetFields"):
        change(path, {f"/calibration/{name}": np.ones((2, 3))})
        with pytest.raises(FileFormatError, match=f"/calibration/{name} is there: this is a system matrix"):
            MeasurementFile(path)
        with h5py.File(path, "r+") as h5:
            del h5[f"/calibration/{name}"]


def test_frames_beyond_the_end_are_refused(path):
    from mpi_fast.errors import InputError

    measurement(path, periods=2, frames=3)
    with MeasurementFile(path) as file:
        assert len(next(file.frames(2, 6))) == 4
        for selection, message in (
            ({"start": 2, "stop": 7}, "frames 2:7 reach beyond the end: there are 6 frames"),
            ({"stop": 100}, "frames 0:100 reach beyond the end"),
            ({"periods": slice(1, 3)}, "periods 1:3 select no ascending range of the 2 periods"),
            ({"periods": slice(1, None, -1)}, "periods 1::-1 select"),
        ):
            with pytest.raises(InputError, match=message):
                file.frames(**selection)


def test_voltages_are_left_as_they_are(path):
    """A plain file needs no note."""
    write_measurement(path, voltages(2, 1, CHANNELS, 16), acquisition=acquisition())
    with MeasurementFile(path) as file:
        assert file.notes == ()


@pytest.mark.parametrize(("size", "shape"), [((12, 1, 1), (1, 12)), ((1, 12, 1), (12, 1)), ((1, 1, 12), (12, 1))])
def test_a_line_is_a_plane(path, size, shape):
    """A calibration along one axis, as of prototypes, needs no option for the plane."""
    matrix, _ = system_matrix(path, size)
    with SystemMatrixFile(path) as file:
        grid = file.grid()
        assert grid.shape == shape
        np.testing.assert_array_equal(file.foreground(grid), matrix.reshape(-1, 12))
