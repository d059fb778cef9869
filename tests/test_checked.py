"""Wrong arguments at the public entries give one message of the package instead of an error of NumPy."""

import numpy as np
import pytest

from mpi_fast.arrays import calibrate_array, frames_of
from mpi_fast.calibration import Calibration
from mpi_fast.checked import checked_array, checked_count
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.flags import Flag
from mpi_fast.preprocessing import RowFilter
from mpi_fast.reconstructor import Reconstructor

RNG = np.random.default_rng(0)
MATRIX = RNG.standard_normal((1, 40, 60)) + 1j * RNG.standard_normal((1, 40, 60))
BACKGROUND = 0.01 * (RNG.standard_normal((1, 40, 4)) + 1j * RNG.standard_normal((1, 40, 4)))
FREQUENCIES = 1e5 + 1e3 * np.arange(40)
ANY_ROW = RowFilter(snr_threshold=0)


def calibrated(matrix=MATRIX, frequencies=FREQUENCIES, grid=(6, 10), size=(0.06, 0.1), **options):
    return Calibration.from_arrays(matrix, frequencies, grid, size, rows=ANY_ROW, **options)


@pytest.fixture(scope="module")
def reconstructor():
    return Reconstructor(calibrated(), threads=1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"matrix": MATRIX[0]}, r"system matrix complex128 \(40, 60\): expected .* \(channels, frequencies, voxels\)"),
        ({"matrix": [[[1, 2], [3]]]}, "system matrix: expected an array of"),
        ({"matrix": np.full((1, 40, 60), "a")}, "system matrix <U1"),
        ({"frequencies": np.where(FREQUENCIES > 1.2e5, np.nan, FREQUENCIES)}, r"frequencies: NaN or Inf at \(21,\)"),
        ({"frequencies": FREQUENCIES + 1j}, "frequencies complex128"),
        ({"background": BACKGROUND[0]}, r"background complex128 \(40, 4\): expected .* \(1, 40, frames\)"),
        ({"background": BACKGROUND[:, :39]}, "background"),
        ({"background": BACKGROUND, "order": (np.arange(5), np.arange(60, 64))}, r"order int64 \(5,\): .* \(60\)"),
        ({"background": BACKGROUND, "order": (np.arange(60), np.arange(60, 62))}, r"order int64 \(2,\): .* \(4\)"),
        ({"snr": np.ones(40)}, r"SNR of the rows float64 \(40,\): .* \(1, 40\)"),
        ({"mixing": np.ones(3, int)}, "mixing orders"),
        ({"grid": 60}, "grid"),
        ({"grid": (6.0, 10.0)}, "grid float64"),
        ({"size": ("a", "b")}, "field of view"),
        ({"facts": {"a": np.ones(3)}}, "facts: expected texts, numbers, lists and dictionaries"),
    ],
)
def test_wrong_arrays_of_a_calibration(wrong, message):
    with pytest.raises(InputError, match=message):
        calibrated(**wrong)


def test_lists_and_other_sequences_are_arrays(tmp_path):
    expected = calibrated()
    found = calibrated(MATRIX.tolist(), FREQUENCIES.tolist(), [6, 10], np.array([0.06, 0.1]))
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    assert (found.grid, found.field_of_view) == ((6, 10), (0.06, 0.1))
    found.save(tmp_path / "a.h5")
    assert Calibration.load(tmp_path / "a.h5").grid == (6, 10)
    calibrated(grid=np.array([6, 10], np.uint16), size=[1, 2]).save(tmp_path / "whole.h5")
    assert Calibration.load(tmp_path / "whole.h5").field_of_view == (1.0, 2.0)
    again = calibrate_array(MATRIX[0].tolist(), (6, 10), (0.06, 0.1), frequencies=FREQUENCIES, rows=ANY_ROW)
    np.testing.assert_array_equal(again.matrix, expected.matrix)
    signals = MATRIX[0].T[:3]
    np.testing.assert_array_equal(frames_of(signals.tolist(), expected), frames_of(signals, expected))
    with pytest.raises(InputError, match="signals: expected an array"):
        frames_of([[1.0, 2.0], [3.0]], expected)


@pytest.mark.parametrize(
    ("signals", "flags"),
    [
        ([[1j, 2j], [1j]], None),
        ("abc", None),
        (None, None),
        (MATRIX[0].T[:2], np.zeros(3, np.uint8)),
        (MATRIX[0].T[:2], [0.5, 0.5]),
        (MATRIX[0].T[:2], "ab"),
    ],
)
def test_wrong_signals_and_flags(reconstructor, signals, flags):
    with pytest.raises(InputError):
        reconstructor(signals, flags)


@pytest.mark.parametrize("wrong", [{"threads": 1.5}, {"threads": "2"}, {"evaluations": 2.5}, {"evaluations": True}])
def test_numbers_that_are_not_whole(wrong):
    with pytest.raises(InputError, match="expected a whole number from 1 to"):
        Reconstructor(calibrated(), **wrong)


def test_numbers_of_frames_and_samples(reconstructor):
    for count in (-1, 1.5, 10**9):
        with pytest.raises(InputError, match=r"frames .*: expected a whole number from 0 to 65536"):
            reconstructor.warmup(count)
    with pytest.raises(InputError, match=r"samples 1\.5: expected a whole number"):
        reconstructor.samples(MATRIX[0].T[:1], 1.5)


def test_masked_values_are_unknown(reconstructor):
    signals = np.ma.masked_array(MATRIX[0].T[:3].astype(np.complex64), mask=False)
    expected = reconstructor(signals)
    assert not (expected.flags & Flag.BAD).any()
    signals[1, 7] = np.ma.masked
    found = reconstructor(signals)
    assert ((found.flags & Flag.BAD) != 0).tolist() == [False, True, False]
    assert np.isnan(found.image[1]).all()
    np.testing.assert_array_equal(found.image[0], expected.image[0])
    masked = np.ma.masked_array(MATRIX, mask=np.zeros(MATRIX.shape, bool))
    masked[0, 3, 5] = np.ma.masked
    with pytest.raises(MPIFastError, match="NaN or Inf"):
        calibrated(masked)
    whole = np.ma.masked_array([1, 2], mask=[False, True])
    np.testing.assert_array_equal(checked_array("x", whole), [1.0, np.nan])


def test_numpy_numbers_count():
    assert checked_count("x", np.int32(3), 0, 5) == 3
