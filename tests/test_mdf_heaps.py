"""Text of variable length is stored in heaps; damaged heaps would make HDF5 loop for ever."""

import struct
from contextlib import closing

import h5py
import numpy as np
import pytest
from mdf_files import measurement

from mpi_fast.errors import FileFormatError
from mpi_fast.mdf import Datasets, MeasurementFile


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "file.mdf"
    measurement(file)
    return file


def free_space(content):
    """Address of the description of the first heap's free space: number 0, and its size eight bytes later."""
    start = content.index(b"GCOL")
    (size,) = struct.unpack_from("<Q", content, start + 8)
    place = start + 16
    while place < start + size:
        number, _, length = struct.unpack_from("<HH4xQ", content, place)
        if number == 0:
            return place
        place += 16 + -(-length // 8) * 8
    raise AssertionError("no free space")


def without_end(content):
    struct.pack_into("<Q", content, free_space(content) + 8, 0)


def beyond_its_end(content):
    struct.pack_into("<Q", content, content.index(b"GCOL") + 16 + 8, 10**6)


def of_no_heap(content):
    start = content.index(b"GCOL")
    content[start : start + 4] = b"GCOX"


def larger_than_the_file(content):
    struct.pack_into("<Q", content, content.index(b"GCOL") + 8, 2**60)


@pytest.mark.parametrize("damage", [without_end, beyond_its_end, of_no_heap, larger_than_the_file])
def test_damaged_heaps_are_named_and_not_walked(path, damage):
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"file\.mdf: /\S+ cannot be read: the heap that its text lies in is dam"):
        MeasurementFile(path)


@pytest.mark.parametrize("userblock", [0, 512])
def test_sound_heaps_of_every_layout_are_read(tmp_path, userblock):
    path, names = tmp_path / "text.h5", ["a", "", "x" * 10_000, *(f"channel {n}" for n in range(500))]
    with h5py.File(path, "w", userblock_size=userblock) as file:
        file["one"] = "some text"
        file["many"] = np.array(names, dtype=h5py.string_dtype())
        file.create_dataset("chunked", data=np.array(names, dtype=h5py.string_dtype()), chunks=(64,))
        file["fixed"] = np.bytes_("fixed")
    with closing(Datasets(path)) as file:
        assert file.text("/one") == "some text"
        assert file.text("/fixed") == "fixed"
        for name in ("/many", "/chunked"):
            assert [text.decode() for text in file.array(name)] == names
