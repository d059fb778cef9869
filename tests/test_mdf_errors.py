"""Files that are refused, and the messages of the reader."""

import h5py
import numpy as np
import pytest
from mdf_files import (
    CHANNELS,
    DATA,
    DRIVE,
    POINTS,
    RECEIVER,
    SAMPLES,
    acquisition,
    change,
    measurement,
    spectra,
    system_matrix,
    voltages,
)

from mpi_fast.errors import FileFormatError, InputError, MismatchError
from mpi_fast.mdf import (
    Grid,
    MeasurementFile,
    SystemMatrixFile,
    read_reconstruction,
    write_measurement,
    write_reconstruction,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


def test_foreign_files(tmp_path):
    text = tmp_path / "text.mdf"
    text.write_text("not HDF5")
    plain = tmp_path / "plain.h5"
    with h5py.File(plain, "w") as h5:
        h5["x"] = 1
    whole = tmp_path / "whole.mdf"
    system_matrix(whole)
    short = tmp_path / "short.mdf"
    short.write_bytes(whole.read_bytes()[:-500])
    for file, message in (
        (tmp_path / "none.mdf", "no such file"),
        (tmp_path, "folder"),
        (text, "not an HDF5 file"),
        (plain, "/version is missing: this HDF5 file is not MDF"),
        (short, "truncated"),
    ):
        for reader in (SystemMatrixFile, MeasurementFile, read_reconstruction):
            with pytest.raises(FileFormatError, match=message) as caught:
                reader(file)
            assert str(file) in str(caught.value)


def test_damage_found_while_reading(path):
    data = voltages(64, CHANNELS, SAMPLES)
    write_measurement(path, data, acquisition=acquisition())
    with h5py.File(path, "r+") as h5:
        del h5[DATA]
        stored = h5.create_dataset(DATA, data=data[:, None], chunks=(64, 1, CHANNELS, SAMPLES), fletcher32=True)
        offset = stored.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[offset] ^= 255
    path.write_bytes(content)
    with (
        MeasurementFile(path) as file,
        pytest.raises(FileFormatError, match="/measurement/data cannot be read"),
    ):
        list(file.frames())


def test_wrong_kind(tmp_path):
    matrix, signals, images = (tmp_path / name for name in ("sm.mdf", "meas.mdf", "reco.mdf"))
    system_matrix(matrix)
    measurement(signals)
    write_reconstruction(images, np.zeros((1, 3, 4)), Grid.regular((3, 4), (1, 1)), acquisition())
    with pytest.raises(FileFormatError, match=r"this is a measurement; .*a system matrix .*was expected"):
        SystemMatrixFile(signals)
    with pytest.raises(FileFormatError, match="this is a system matrix; a measurement was expected"):
        MeasurementFile(matrix)
    with pytest.raises(FileFormatError, match="/measurement/data is missing"):
        MeasurementFile(images)
    with pytest.raises(FileFormatError, match="/reconstruction/size is missing"):
        read_reconstruction(matrix)


MANDATORY = [
    "/version",
    DATA,
    "/calibration/size",
    "/calibration/fieldOfView",
    f"{DRIVE}/baseFrequency",
    f"{DRIVE}/divider",
    f"{DRIVE}/strength",
    f"{RECEIVER}/bandwidth",
    f"{RECEIVER}/numSamplingPoints",
    f"{RECEIVER}/numChannels",
]


@pytest.mark.parametrize("name", MANDATORY)
def test_missing_datasets(path, name):
    system_matrix(path)
    change(path, {name: None})
    with (
        pytest.raises(FileFormatError, match=rf"file\.mdf: {name} is missing"),
        SystemMatrixFile(path) as file,
    ):
        file.grid()


BROKEN = [
    ("/version", "1.0.5", "MDF version 2 was expected"),
    (DATA, np.zeros((1, CHANNELS, POINTS), complex), "four axes"),
    (DATA, np.zeros((1, CHANNELS, POINTS + 1, 16), complex), "K = 9 was expected"),
    (DATA, np.zeros((1, CHANNELS + 1, POINTS, 16), complex), "C = 2 channels"),
    (DATA, np.zeros((2, CHANNELS, POINTS, 16), complex), "2 periods per frame, but"),
    (DATA, np.zeros((1, CHANNELS, POINTS, 16)), "complex numbers"),
    (DATA, np.zeros((1, CHANNELS, POINTS, 17), complex), "one for each of the 17 frames"),
    ("/measurement/isBackgroundFrame", np.zeros(16, np.int8), "16 foreground frames"),
    ("/measurement/framePermutation", np.arange(16), "distinct numbers from 1 to 16"),
    ("/measurement/framePermutation", np.arange(16) + 0.5, "whole numbers"),
    ("/measurement/framePermutation", h5py.Empty("i8"), "framePermutation is missing"),
    ("/measurement/framePermutation", np.ones(16, int), "distinct numbers"),
    ("/measurement/framePermutation", np.arange(1, 16), "15 entries"),
    ("/measurement/isFrequencySelection", 1, "frequencySelection is missing"),
    ("/measurement/frequencySelection", [1, 99], None),
    ("/measurement/isSparsityTransformed", 1, "compressed system matrices are not supported"),
    ("/measurement/isFourierTransformed", 0, "V = 16"),
    ("/measurement/isFastFrameAxis", 0, "N x J x C x K"),
    ("/measurement/isFastFrameAxis", "yes", "a number was expected"),
    ("/calibration/size", [4, 3], "3 values"),
    ("/calibration/size", [4, 3, 0], "whole numbers of at least 1"),
    ("/calibration/size", [4, 4, 1], "foreground frames"),
    ("/calibration/snr", np.ones((1, CHANNELS, 4)), "J x C x K = 1 x 2 x 9"),
    ("/calibration/order", "xxy", "letters x, y and z"),
    ("/calibration/fieldOfView", "wide", "real numbers"),
    ("/acquisition/gradient", np.ones(4), "J x Y x 3 x 3"),
    (f"{DRIVE}/divider", [[-1], [96]], "from 0"),
    (f"{DRIVE}/phase", np.ones(0), "J x D x F = 1 x 2 x 1"),
    (f"{DRIVE}/strength", np.ones(3), "J x D x F = 1 x 2 x 1"),
    (f"{RECEIVER}/bandwidth", 1j, "a number was expected"),
    (f"{RECEIVER}/bandwidth", 0.0, "a positive number"),
    (f"{RECEIVER}/bandwidth", [1.0, 2.0], "one value"),
    (f"{RECEIVER}/numSamplingPoints", 16.5, "whole number"),
    (f"{RECEIVER}/numSamplingPoints", np.nan, "whole number"),
]


@pytest.mark.parametrize(("name", "value", "message"), BROKEN)
def test_inconsistent_files(path, name, value, message):
    system_matrix(path)
    change(path, {name: value})
    if message is None:
        # The flag is off, so the list is ignored.
        SystemMatrixFile(path).close()
        return
    with pytest.raises(FileFormatError, match=message) as caught, SystemMatrixFile(path) as file:
        file.grid()
    assert str(caught.value).startswith(f"{path}: /")


def test_other_refusals(path):
    measurement(path)
    change(path, {"/measurement/isBackgroundFrame": np.ones(8)})
    with pytest.raises(FileFormatError, match="every frame as background"):
        MeasurementFile(path)
    measurement(path)
    change(path, {"/measurement/isFrequencySelection": 1, "/measurement/frequencySelection": [1, 2]})
    with pytest.raises(FileFormatError, match="time domain"):
        MeasurementFile(path)
    measurement(path)
    change(path, {f"{RECEIVER}/dataConversionFactor": np.ones((3, 2))})
    with pytest.raises(FileFormatError, match="C x 2 = 2 x 2"):
        MeasurementFile(path)
    measurement(path)
    change(path, {DATA: np.zeros((8, 1, CHANNELS, SAMPLES), complex)})
    with pytest.raises(FileFormatError, match="real numbers were expected"):
        MeasurementFile(path)


def test_matrices_that_need_more_than_reading(path):
    system_matrix(path)
    change(path, {DATA: spectra(2, CHANNELS, POINTS, 16), "/acquisition/numPeriodsPerFrame": 2})
    with pytest.raises(MismatchError, match="2 periods per frame; only single-patch"):
        SystemMatrixFile(path)
    system_matrix(path, background_index=None)
    change(path, {"/calibration/isMeanderingGrid": 1})
    with pytest.raises(FileFormatError, match="isMeanderingGrid is set without a framePermutation"):
        SystemMatrixFile(path)


def test_plane_selection_errors(path):
    system_matrix(path, (4, 3, 2))
    with SystemMatrixFile(path) as file:
        with pytest.raises(MismatchError, match=r"no plane z=2.*from 0 to 1"):
            file.grid(("z", 2))
        with pytest.raises(InputError, match="axis is 'w'"):
            file.grid(("w", 0))
        with pytest.raises(MismatchError, match="another file"):
            file.foreground(Grid.regular((5, 5), (1, 1)))
        with pytest.raises(InputError, match=r"rows: .*from 0 to 17"):
            file.background(np.array([18]))
