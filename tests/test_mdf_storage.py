"""Stored values: zeros that were never written, unusable numbers, and other objects instead of datasets."""

import os
import time

import h5py
import numpy as np
import pytest
from mdf_files import (
    CHANNELS,
    DATA,
    SAMPLES,
    acquisition,
    change,
    convert,
    measurement,
    refused,
    replace,
    system_matrix,
)

from mpi_fast.errors import FileFormatError, FileWarning
from mpi_fast.mdf import (
    Datasets,
    Grid,
    MeasurementFile,
    SystemMatrixFile,
    read_reconstruction,
    validate,
    write_reconstruction,
)

AVERAGES = "/acquisition/numAverages"
SHAPE = (8, 1, CHANNELS, SAMPLES)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


def virtual(*sources):
    """Replace the data by a virtual dataset of two halves, from the datasets d of two files."""

    def make(h5, old):
        layout = h5py.VirtualLayout(SHAPE, "f4")
        for number, source in enumerate(sources):
            half = slice(4 * number, 4 * number + 4)
            layout[half] = h5py.VirtualSource(source, "d", (4, *SHAPE[1:]))
        h5.create_virtual_dataset(DATA, layout)

    return make


# -- zeros for missing data -------------------------------------------------------------------------------------------


def test_chunks_that_were_never_written(path):
    measurement(path)

    def some(h5, old):
        h5.create_dataset(DATA, old.shape, old.dtype, chunks=(2, *old.shape[1:]))[:4] = old[:4]

    replace(path, some)
    refused(path, "data lacks 2 of its 4 chunks, which were never written; the first is in frame 4")
    replace(path, lambda h5, old: h5.create_dataset(DATA, old.shape, old.dtype))
    refused(path, "data was never written; the first is in frame 0")


def test_voxels_that_were_never_written(path):
    system_matrix(path)

    def some(h5, old):
        data = h5.create_dataset(DATA, old.shape, old.dtype, chunks=(*old.shape[:3], 4))
        data[..., :8], data[..., 12:] = old[..., :8], old[..., 12:]

    replace(path, some)
    refused(path, "lacks 1 of its 4 chunks, .* voxel 8 of 12, as stored", SystemMatrixFile)


def test_virtual_data_whose_source_is_gone(path):
    old = measurement(path)
    replace(path, virtual("a.h5", "b.h5"))
    with h5py.File(path.with_name("a.h5"), "w") as h5:
        h5["d"] = old[:4]
    refused(path, "data lies in another file, 'b.h5', which does not exist")
    with h5py.File(path.with_name("b.h5"), "w") as h5:
        h5["x"] = old[4:]
    refused(path, r"is virtual, and its source .*b\.h5:d does not exist")
    with h5py.File(path.with_name("b.h5"), "w") as h5:
        h5.create_dataset("d", (4, *SHAPE[1:]), "f4")
    refused(path, r"takes values from .*b\.h5:d, which was never written; the first is in frame 4")
    with h5py.File(path.with_name("b.h5"), "w") as h5:
        h5["d"] = old[4:]
    with MeasurementFile(path) as file:
        np.testing.assert_allclose(next(file.frames()), np.fft.rfft(old[:6, 0]), rtol=1e-5, atol=1e-5)
    replace(path, virtual("a.h5"))
    refused(path, "is virtual, and 128 of its values have no source")


def test_raw_files_cut_short(path):
    old = measurement(path)
    raw = path.with_name("raw.bin")
    replace(path, lambda h5, _: h5.create_dataset(DATA, SHAPE, "f4", external=[(raw.name, 8, old.nbytes)]))
    refused(path, "lies in another file, .*raw.bin.*, which does not exist")
    raw.write_bytes(bytes(8) + old.tobytes()[:-100])
    refused(path, "raw.bin, which is cut short: 932 bytes, 1032 were expected")
    raw.write_bytes(bytes(8) + old.tobytes())
    with MeasurementFile(path) as file:
        np.testing.assert_allclose(next(file.frames()), np.fft.rfft(old[:6, 0]), rtol=1e-5, atol=1e-5)


def test_zeros_that_may_be_meant_are_warned_of(path):
    old = measurement(path)
    change(path, {DATA: np.where(np.arange(8)[:, None, None, None] == 2, 0, old)})
    with MeasurementFile(path) as file, pytest.warns(FileWarning, match="exactly zero in frame 2"):
        list(file.frames())
    change(path, {DATA: np.where(np.arange(8)[:, None, None, None] == 7, 0, old)})
    with MeasurementFile(path) as file, pytest.warns(FileWarning, match="exactly zero in background frame 1"):
        file.background_mean()
    system_matrix(path)
    convert(path, DATA, lambda data: np.where(np.arange(16) < 7, data, 0))
    with SystemMatrixFile(path) as file, pytest.warns(FileWarning, match="zero in 5 of 12 voxels, from voxel 7 on"):
        file.foreground(file.grid())
    convert(path, DATA, np.zeros_like)
    refused(path, "exactly zero in 12 of 12 voxels", SystemMatrixFile)


def test_a_parameter_that_was_never_written(path):
    measurement(path, background=0)
    with h5py.File(path, "r+") as h5:
        del h5["/measurement/isBackgroundFrame"]
        h5.create_dataset("/measurement/isBackgroundFrame", (6,), "i1")
    with pytest.warns(FileWarning, match="isBackgroundFrame was never written; it is read as zeros"):
        MeasurementFile(path).close()


def test_images_that_were_never_written(path):
    write_reconstruction(path, np.ones((4, 3, 4)), Grid.regular((3, 4), (1, 1)), acquisition())
    change(path, {"/reconstruction/data": None})
    with h5py.File(path, "r+") as h5:
        h5.create_dataset("/reconstruction/data", (4, 12, 1), "f4", chunks=(1, 12, 1))[:2] = 1
    with pytest.raises(FileFormatError, match="lacks 2 of its 4 chunks, which were never written, from image 2 on"):
        read_reconstruction(path)


# -- numbers ----------------------------------------------------------------------------------------------------------


def test_numbers_that_would_overflow(path):
    old = measurement(path)
    old[3, 0, 1, 5] = 1e38
    change(path, {DATA: old})
    with MeasurementFile(path) as file, pytest.warns(FileWarning, match=r"1e\+38 in frame 3, channel 1, too large"):
        frames = next(file.frames())
    assert np.isnan(frames[3, 1]).all()
    assert np.isfinite(np.delete(frames, 3, 0)).all()
    for bad, message in ((1e38, r"1e\+38, too large to compute with,"), (np.nan, "NaN or Inf"), (np.inf, "NaN or Inf")):
        system_matrix(path)
        convert(path, DATA, lambda data, bad=bad: np.where(np.arange(data.size).reshape(data.shape) == 165, bad, data))
        refused(path, f"holds {message} in channel 1 at 1.53186 kHz, voxel 5 of 12, as stored", SystemMatrixFile)
        with SystemMatrixFile(path) as file:
            file.foreground(file.grid(), np.arange(9))  # rows that are not requested do no harm


@pytest.mark.parametrize("value", [2, -1, np.nan, 0.5])
@pytest.mark.parametrize(
    "name", ["isFastFrameAxis", "isFourierTransformed", "isBackgroundCorrected", "isFramePermutation"]
)
def test_flags_are_0_or_1(path, name, value):
    measurement(path)
    change(path, {f"/measurement/{name}": value})
    refused(path, f"/measurement/{name} is .*; 0 or 1 was expected")


def test_background_flags_are_0_or_1(path):
    measurement(path)
    change(path, {"/measurement/isBackgroundFrame": np.array([0, 0, 3, 0, 0, 0, 1, 1])})
    refused(path, "isBackgroundFrame is 3 for frame 2; 0 or 1 was expected")


@pytest.mark.parametrize(
    "change_it", [lambda f: f.write(b"more"), lambda f: f.truncate(9000), lambda f: os.utime(f.name)]
)
def test_a_file_that_changes_while_it_is_read(path, change_it):
    measurement(path)
    with MeasurementFile(path) as file:
        time.sleep(0.02)
        with path.open("r+b") as other:
            other.seek(0, 2)
            change_it(other)
        with pytest.raises(FileFormatError, match=r"was changed while it was read|cannot be read"):
            list(file.frames())


# -- other objects instead of datasets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "is a group; a dataset was expected"),
        (h5py.SoftLink("/nowhere"), "is a link to '/nowhere', which does not exist"),
        (h5py.SoftLink(AVERAGES), "leads through links in a circle"),
        (h5py.ExternalLink("gone.h5", "/x"), "lies in another file, 'gone.h5', which does not exist"),
    ],
)
def test_no_dataset_where_one_belongs(path, item, message):
    measurement(path)
    with h5py.File(path, "r+") as h5:
        del h5[AVERAGES]
        if item is None:
            h5.create_group(AVERAGES)
        else:
            h5[AVERAGES] = item
    refused(path, f"{AVERAGES} {message}")
    assert any(AVERAGES in one for one in validate(path))


def test_a_missing_filter_is_named(path):
    measurement(path)

    def make(h5, old):
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(old.shape)
        properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        space = h5py.h5s.create_simple(old.shape)
        h5py.h5d.create(h5["/measurement"].id, b"data", h5py.h5t.IEEE_F32LE, space, properties)

    replace(path, make)
    refused(path, r"compressed by the HDF5 filter blosc \(number 32001\), which is not installed")


def test_no_frames(path):
    measurement(path)
    convert(path, DATA, lambda data: data[:0])
    refused(path, r"has shape \(0, 1, 2, 16\): it holds no frames")


# -- every exception --------------------------------------------------------------------------------------------------

ODD = {
    "surrogates": np.array(["\udc80".encode("utf-8", "surrogateescape")]),
    "bytes": np.bytes_(b"\xff\xfe\x00"),
    "compound": np.array([(1, 2.0)], [("a", "i4"), ("b", "f4")]),
    "32 axes": np.zeros((1,) * 32),
    "huge": np.float64(1e300),
    "not a number": np.float64(np.nan),
    "large integer": np.uint64(2**64 - 1),
    "nothing": h5py.Empty("f8"),
    "no values": np.zeros(0),
    "complex": np.complex128(1 + 2j),
    "text": "text",
    "reference": "reference",
}


@pytest.mark.parametrize(("number", "value"), list(enumerate(ODD.values())), ids=ODD)
@pytest.mark.parametrize("write", [measurement, system_matrix])
def test_odd_values_anywhere(path, number, value, write):
    """Odd values in every fourth dataset are read, or refused by an error that names a dataset."""
    write(path)
    names = []
    with h5py.File(path) as h5:
        h5.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    whole = path.read_bytes()
    for name in names[number % 4 :: 4]:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as h5:
            del h5[name]
            h5[name] = h5["/measurement"].ref if isinstance(value, str) and value == "reference" else value
        try:
            with (MeasurementFile if write is measurement else SystemMatrixFile)(path) as file:
                list(file.frames()) if write is measurement else file.foreground(file.grid())
        except FileFormatError as error:
            unnamed = str(error) if " /" not in str(error) else ""
        else:
            unnamed = ""
        assert not unnamed
        validate(path)


def test_datasets_for_everybody(path):
    """The reading layer alone, for files that are not MDF."""
    measurement(path)
    datasets = Datasets(path)
    assert datasets.members("/acquisition/receiver") == ["bandwidth", "numChannels", "numSamplingPoints", "unit"]
    assert datasets.members("/nothing") == []
    assert datasets.has("/acquisition")
    assert not datasets.has("/acquisition/nothing")
    assert datasets.text("/acquisition/receiver/unit") == "V"
    datasets.close()
