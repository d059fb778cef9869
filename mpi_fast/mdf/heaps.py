"""Check global heaps, where HDF5 stores strings of variable length, before HDF5 reads them.

A heap is a collection of objects, each with the size of its data; the next one begins where they end (HDF5 file format
specification, section III.E, "Disk format: level 1E, global heap"). HDF5 2.0 does not check these sizes: a size of zero
for the free space makes it loop for ever.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, Any

import h5py

if TYPE_CHECKING:
    from mpi_fast.mdf.hdf5 import HDF5File

_REFERENCE = struct.Struct("<IQI")  # length, address of the collection, number of the object
_COLLECTION = struct.Struct("<4sB3xQ")  # signature, version, size
_OBJECT = struct.Struct("<HH4xQ")  # number, reference count, size


def check_heaps(file: HDF5File, name: str, dataset: Any) -> None:
    """Raise FileFormatError if a collection with strings of a dataset is damaged.

    Only contiguously stored strings of variable length are checked, as scalars are; others are left to HDF5.
    """
    text, listed = h5py.check_string_dtype(dataset.dtype), h5py.check_vlen_dtype(dataset.dtype)
    if listed is None and (text is None or text.length is not None):
        return
    created, offset = dataset.file.id.get_create_plist(), dataset.id.get_offset()
    if offset is None or created.get_sizes() != (8, 8):
        return
    handle, base = dataset.file.id.get_vfd_handle(), created.get_userblock()
    references = os.pread(handle, _REFERENCE.size * min(int(dataset.size), 4096), offset)
    whole = len(references) // _REFERENCE.size * _REFERENCE.size
    for address in {address for _, address, _ in _REFERENCE.iter_unpack(references[:whole])}:
        if address not in (0, 2**64 - 1) and not _is_sound(handle, base + address):
            file.fail(name, "cannot be read: the heap that its text lies in is damaged")


def _is_sound(handle: int, address: int) -> bool:
    """Whether the objects of the collection at an address fill it exactly."""
    end = os.fstat(handle).st_size
    if address + _COLLECTION.size > end:
        return False
    signature, version, size = _COLLECTION.unpack(os.pread(handle, _COLLECTION.size, address))
    if signature != b"GCOL" or version != 1 or not _COLLECTION.size < size <= end - address:
        return False
    place, stop = address + _COLLECTION.size, address + size
    while place + _OBJECT.size <= stop:
        number, _, length = _OBJECT.unpack(os.pread(handle, _OBJECT.size, place))
        # The free space, number 0, counts its own header and is the last; data are padded to eight bytes.
        step = length if number == 0 else _OBJECT.size + -(-length // 8) * 8
        if step < _OBJECT.size or place + step > stop:
            return False
        place += step
    return True
