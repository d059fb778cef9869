"""Scale and sampling: the conversion factor is applied as MDF defines, and redundant statements must agree."""

import numpy as np
import pytest
from mdf_files import (
    CHANNELS,
    CYCLE,
    DATA,
    DRIVE,
    RECEIVER,
    SAMPLES,
    change,
    compound,
    convert,
    frames_first,
    measurement,
    system_matrix,
    time_domain,
)

from mpi_fast.cli.info import about
from mpi_fast.errors import FileFormatError, FileWarning
from mpi_fast.mdf import MeasurementFile, SystemMatrixFile

FACTOR = np.array([[2.0, 0.25], [0.5, -1.0]])
NAME = f"{RECEIVER}/dataConversionFactor"
CLOSE = {"rtol": 1e-5, "atol": 1e-4}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


def raw(volts):
    """Raw numbers of the converter: (..., C, V)."""
    return (volts - FACTOR[:, 1:]) / FACTOR[:, :1]


def frames(path):
    with MeasurementFile(path) as file:
        return next(file.frames()), file.scale.reason


@pytest.mark.parametrize("kind", ["samples", "spectra", "selected spectra", "spectra of integers", "corrected spectra"])
def test_raw_numbers_of_a_measurement_are_converted(path, kind):
    volts = measurement(path, background=0)
    expected = np.fft.rfft(volts[:, 0].astype(float))
    change(path, {NAME: FACTOR, DATA: raw(volts.astype(float))})
    if kind != "samples":
        change(path, {"/measurement/isFourierTransformed": np.int8(1)})
        convert(path, DATA, np.fft.rfft)
    if kind == "selected spectra":
        convert(path, DATA, lambda data: data[..., [5, 0, 3]])
        change(path, {"/measurement/frequencySelection": [6, 1, 4], "/measurement/isFrequencySelection": np.int8(1)})
        expected = expected[..., [0, 3, 5]]
    if kind == "spectra of integers":
        change(path, {NAME: FACTOR * (1e-6, 1)})
        convert(path, DATA, lambda data: compound_of_integers(data * 1e6))
    if kind == "corrected spectra":
        # Background correction also removes the constant.
        change(path, {"/measurement/isBackgroundCorrected": np.int8(1)})
        convert(path, DATA, lambda data: np.fft.rfft(volts / FACTOR[:, :1]))
    found, reason = frames(path)
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert "conversion factor (" in reason
    assert about(path)["scale"] == reason


def compound_of_integers(data):
    """Spectra as {r, i} of large integers, so that rounding is negligible."""
    out = np.empty(data.shape, [("r", "i8"), ("i", "i8")])
    out["r"], out["i"] = np.rint(data.real), np.rint(data.imag)
    return out


def test_a_matrix_is_physical_already(path):
    matrix, _ = system_matrix(path)
    change(path, {NAME: FACTOR})
    with SystemMatrixFile(path) as file:
        np.testing.assert_array_equal(file.foreground(file.grid()), matrix.reshape(-1, 12))
    assert (
        about(path)["scale"]
        == "as stored: the conversion factor is that of raw samples, and a matrix is physical already"
    )


def test_raw_samples_of_a_matrix_are_converted(path):
    matrix, _ = system_matrix(path)
    time_domain(path)
    convert(path, DATA, raw)
    change(path, {NAME: FACTOR})
    with SystemMatrixFile(path) as file:
        np.testing.assert_allclose(file.foreground(file.grid()), matrix.reshape(-1, 12), **CLOSE)


def test_what_may_be_converted_already_is_refused(path):
    system_matrix(path)
    frames_first(path)
    change(path, {NAME: FACTOR})
    with pytest.raises(FileFormatError, match=r"is 2, 0\.5 beside data of a matrix that is stored frame by frame"):
        SystemMatrixFile(path)
    measurement(path)
    change(path, {NAME: FACTOR, "/measurement/isTransferFunctionCorrected": np.int8(1)})
    with pytest.raises(FileFormatError, match="beside data whose transfer function is corrected"):
        MeasurementFile(path)
    change(path, {NAME: [[1.0, 0.0]] * CHANNELS})
    MeasurementFile(path).close()


@pytest.mark.parametrize("bad", [[[0, 0], [1, 0]], [[np.nan, 0], [1, 0]], [[1, np.inf], [1, 0]]])
def test_factors_that_convert_nothing(path, bad):
    measurement(path)
    change(path, {NAME: np.array(bad, float)})
    with pytest.raises(FileFormatError, match=r"dataConversionFactor is .* finite scales other than zero"):
        MeasurementFile(path)


# -- sampling ---------------------------------------------------------------------------------------------------------

BANDWIDTH = SAMPLES / (2 * CYCLE)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (f"{RECEIVER}/bandwidth", BANDWIDTH / 1e6, "is 0.0122549, as if in MHz; 12254.9 Hz was expected"),
        (f"{RECEIVER}/bandwidth", BANDWIDTH / 1e3, "is 12.2549, as if in kHz; 12254.9 Hz was expected"),
        (
            f"{RECEIVER}/bandwidth",
            BANDWIDTH * 0.9,
            "16 samples last 725.333 us, but a cycle of the drive field is 652",
        ),
        (f"{RECEIVER}/bandwidth", BANDWIDTH * 2, "16 samples last 326.4 us, but"),
        (f"{DRIVE}/cycle", CYCLE / 2, "is 326.4 us, but the dividers 102, 96 of 2.5e"),
        (f"{DRIVE}/cycle", CYCLE * 3, "16 samples last 652.8 us, but a cycle of the drive field is 1958.4 us"),
        (f"{DRIVE}/divider", [[102], [99]], "652.8 us, but the dividers 102, 99"),
        (f"{DRIVE}/baseFrequency", 2e6, "dividers 102, 96 of 2e"),
        (f"{DRIVE}/cycle", np.inf, "cycle is inf s"),
    ],
)
@pytest.mark.parametrize("write", [measurement, system_matrix])
def test_contradictory_sampling(path, write, name, value, message):
    write(path)
    change(path, {name: value})
    with pytest.raises(FileFormatError, match=message.replace("(", r"\(")):
        (MeasurementFile if write is measurement else SystemMatrixFile)(path)


@pytest.mark.parametrize("cycles", [2, 3, 4])
def test_several_cycles_in_one_period_are_fine(path, cycles):
    measurement(path)
    change(path, {f"{RECEIVER}/bandwidth": BANDWIDTH / cycles})
    with MeasurementFile(path) as file:
        np.testing.assert_allclose(file.acquisition.frequencies[cycles], 1 / CYCLE)


def test_a_cycle_that_counts_channels_without_drive(path):
    measurement(path)
    change(path, {f"{DRIVE}/divider": [[102], [96], [99]], f"{DRIVE}/cycle": 53856 / 2.5e6})
    change(path, {f"{DRIVE}/strength": [[[0.012], [0.012], [0.0]]], f"{DRIVE}/phase": np.zeros((1, 3, 1))})
    with pytest.warns(FileWarning, match="counts channels without drive; 652.8 us is right"):
        MeasurementFile(path).close()


def test_compounds_are_as_good_as_complex_numbers(path):
    volts = measurement(path, background=0)
    change(path, {"/measurement/isFourierTransformed": np.int8(1), NAME: FACTOR})
    convert(path, DATA, lambda data: compound(np.fft.rfft(raw(data.astype(float))), ("re", "im")))
    np.testing.assert_allclose(frames(path)[0], np.fft.rfft(volts[:, 0].astype(float)), **CLOSE)
