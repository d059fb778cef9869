"""Arrays with axes in any order give the same calibration and frames."""

from dataclasses import replace

import numpy as np
import pytest
from array_signals import CHANNELS, EMPTY, GRID, SAMPLES, SIZE

from mpi_fast.arrays import calibrate_array, frames_of
from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.experiment import acquisition_of
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner


@pytest.fixture(scope="module")
def expected(spectra):
    filled = np.delete(np.arange(15), EMPTY)
    order = filled, np.array(EMPTY)
    return Calibration.from_arrays(spectra[..., filled], None, GRID, SIZE, background=spectra[..., EMPTY], order=order)


def assert_same(found, expected):
    np.testing.assert_allclose(found.matrix, expected.matrix, rtol=1e-6)
    np.testing.assert_allclose(found.singular_values, expected.singular_values, rtol=1e-5)
    assert (found.grid, found.field_of_view) == (expected.grid, expected.field_of_view)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0)])
def test_axes_of_a_matrix_in_any_order(volts, spectra, expected, order):
    for array in (spectra, volts):
        assert_same(calibrate_array(array.transpose(order), GRID, SIZE, empty=EMPTY), expected)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rows_of_one_channel(spectra, order):
    rows = spectra.reshape(-1, 15)[:, 1:13]
    expected = Calibration.from_arrays(rows[None], None, GRID, SIZE)
    assert_same(calibrate_array(rows.transpose(order), GRID, SIZE), expected)
    assert expected.facts["frequencies"] == "unknown"
    assert expected.selection.all()  # the default of 80 kHz does not apply to unknown frequencies


def test_voxels_in_matlab_s_order(spectra):
    rows = spectra.reshape(-1, 15)[:, 1:13]
    columns_first = rows.reshape(-1, 3, 4).transpose(0, 2, 1).reshape(-1, 12)  # as MATLAB's reshape(x, 3, 4)
    assert_same(calibrate_array(columns_first, GRID, SIZE, fastest="y"), calibrate_array(rows, GRID, SIZE))


def test_frequencies_select_rows_where_they_are_known(volts, spectra):
    above = RowFilter(min_frequency=300e3, snr_threshold=0)
    by_rate = calibrate_array(volts, GRID, SIZE, empty=EMPTY, sampling_rate=2e6, rows=above)
    frequencies = np.fft.rfftfreq(SAMPLES, 0.5e-6)
    by_name = calibrate_array(spectra, GRID, SIZE, empty=EMPTY, frequencies=frequencies, rows=above)
    assert_same(by_rate, by_name)
    np.testing.assert_allclose(by_rate.frequencies, frequencies)
    assert by_rate.num_rows == CHANNELS * (frequencies >= 300e3).sum()


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((40, 13), {}, "no axis has the length 12 for 3 x 4 voxels"),
        ((12, 12), {}, "several axes may count 12 .* --axis"),
        ((12, 40), {"axis": 1}, "axis 1 does not count"),
        ((12, 2, 3, 4), {}, "expected two axes, or three"),
        ((40, 12), {"fastest": "z"}, "expected x or y"),
        ((40, 14), {"empty": (3, 3)}, "different numbers from 0 to 13"),
        ((40, 13), {"empty": (13,)}, "different numbers from 0 to 12"),
    ],
)
def test_matrices_whose_axes_do_not_tell(shape, options, message):
    with pytest.raises(InputError, match=message):
        calibrate_array(np.ones(shape, complex), GRID, SIZE, **options)


def test_an_axis_that_was_named(spectra):
    square = spectra.reshape(-1, 15)[:12, 1:13]
    named = calibrate_array(square.T, GRID, SIZE, axis=0)
    assert_same(named, Calibration.from_arrays(square[None], None, GRID, SIZE))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1), (2, 0, 1), (1, 2, 0)])
def test_frames_in_any_order(volts, spectra, expected, order):
    for array in (spectra, volts):
        frames = frames_of(array.transpose(order), expected)
        rows = expected.rows(frames)
        np.testing.assert_allclose(rows, expected.rows(spectra.transpose(2, 0, 1)), atol=1e-5)
    less = expected.rows(frames_of(volts, expected, empty=(0, 13)))
    background = rows[[0, 13]].mean(axis=0)
    np.testing.assert_allclose(less, np.delete(rows, (0, 13), axis=0) - background, atol=1e-5)


def test_a_single_frame(volts, spectra, expected):
    one = expected.rows(frames_of(spectra[..., 3], expected))
    np.testing.assert_array_equal(one, expected.rows(frames_of(spectra[..., 3].T, expected)))
    flat = calibrate_array(spectra.reshape(-1, 15)[:, 1:13], GRID, SIZE)
    row = spectra.reshape(-1, 15)[:, 4]
    for shape in ((-1,), (1, -1), (-1, 1)):
        assert frames_of(row.reshape(shape), flat).shape == (1, 1, len(row))


def test_frames_that_do_not_fit(spectra, expected):
    with pytest.raises(MismatchError, match="frames of 2 x 16: the calibration has 2 receive channels and 16"):
        frames_of(spectra[:, :-1], expected)
    with pytest.raises(MismatchError, match="30 samples"):
        frames_of(spectra.real, expected)
    with pytest.raises(InputError, match="several axes may count frames"):
        frames_of(np.ones((2, 2, 16), complex), expected)
    assert frames_of(np.ones((2, 2, 16), complex), expected, axis=1).shape == (2, 2, 16)
    with pytest.raises(InputError, match="frames without a sample"):
        frames_of(spectra, expected, empty=(15,))


def test_frames_of_a_scanner_with_an_odd_number_of_samples(expected):
    odd = replace(acquisition_of(Scanner()), num_samples=SAMPLES + 1, num_channels=CHANNELS)
    calibration = replace(expected, acquisition=odd)
    assert frames_of(np.ones((4, CHANNELS, SAMPLES + 1)), calibration).shape == (4, CHANNELS, SAMPLES + 1)
    with pytest.raises(MismatchError, match="31 samples"):
        frames_of(np.ones((4, CHANNELS, SAMPLES)), calibration)
