"""Check the storage of a dataset before HDF5 reads its values.

HDF5 returns zeros for missing values: chunks that were never written, virtual datasets whose source is missing,
truncated external raw files. It crashes on virtual datasets that are their own source.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from mpi_fast.mdf.access import regular_size

if TYPE_CHECKING:
    from mpi_fast.mdf.hdf5 import HDF5File

Hole = tuple[tuple[int, ...], str]
Place = tuple[Path, int]
# Names as registered with the HDF Group, because a file need not contain them.
_FILTERS = {
    4: "szip",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32026: "blosc2",
}
_LARGEST_CHUNK = 1 << 30  # bytes; HDF5 holds a complete chunk in memory


def check_storage(file: HDF5File, name: str, dataset: Any) -> None:
    """Raise FileFormatError if values cannot be read, or lie in a place that is not permitted."""
    _check_filters(file, name, dataset)
    if dataset.is_virtual:
        _check_sources(file, name, dataset, (), set())
    for part in dataset.external or ():
        _check_raw_file(file, name, part)
    if dataset.chunks:
        size = math.prod(dataset.chunks) * dataset.dtype.itemsize
        largest = min(_LARGEST_CHUNK, file.largest_expansion())
        if size > largest:
            file.fail(name, f"has chunks of {size / 2**20:.0f} MiB; at most {largest / 2**20:.0f} MiB were expected")


def find_hole(file: HDF5File, name: str, dataset: Any) -> Hole | None:
    """Return the index of the first value that was never written, and the reason; None if there is none."""
    if dataset.size == 0 or dataset.external:
        return None
    if dataset.is_virtual:
        return _virtual_hole(file, name, dataset)
    if dataset.chunks is None:
        written = dataset.id.get_storage_size() > 0
        return None if written else ((0,) * len(dataset.shape), "was never written")
    expected = [-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    if dataset.id.get_num_chunks() >= math.prod(expected):
        return None
    if math.prod(expected) > 1 << 24:  # more chunks than real files have, and too many to list
        return (0,) * len(dataset.shape), "has chunks that were never written"
    present = np.zeros(expected, bool)

    def mark(chunk: Any) -> None:
        present[tuple(start // length for start, length in zip(chunk.chunk_offset, dataset.chunks, strict=True))] = True

    dataset.id.chunk_iter(mark)
    first = np.unravel_index(int(np.argmin(present)), expected)
    missing = present.size - int(present.sum())
    index = tuple(int(i) * length for i, length in zip(first, dataset.chunks, strict=True))
    return index, f"lacks {missing} of its {present.size} chunks, which were never written"


def _check_filters(file: HDF5File, name: str, dataset: Any) -> None:
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, label = properties.get_filter(number)
        if not h5py.h5z.filter_avail(code):
            called = _FILTERS.get(code) or label.decode("utf-8", "replace").split(";")[0].strip() or "of no known name"
            file.fail(
                name,
                f"is compressed by the HDF5 filter {called} (number {code}), which is not installed: name the folder "
                "of its plugin in HDF5_PLUGIN_PATH, or store the file anew with gzip (h5repack -f GZIP=4)",
            )


def _check_raw_file(file: HDF5File, name: str, part: Sequence[Any]) -> None:
    named, offset, length = str(part[0]), int(part[1]), int(part[2])
    path = file.allowed(name, named)
    # With the folder of the file set, HDF5 looks for raw data only there.
    expected = Path(named) if Path(named).is_absolute() else file.path.resolve().parent / named
    if not expected.exists():
        file.fail(name, f"lies in another file, {expected}, which does not exist")
    found = regular_size(path)
    if length != h5py.h5f.UNLIMITED and found < offset + length:
        file.fail(name, f"lies in {path}, which is cut short: {found} bytes, {offset + length} were expected")


def _check_sources(file: HDF5File, name: str, dataset: Any, above: tuple[Place, ...], done: set[Place]) -> None:
    """Check the sources of a virtual dataset and theirs; `above` led here, `done` are checked."""
    above = (*above, _place(file, dataset))
    for owner, origin in _sources(file, name, dataset):
        place = _place(owner, origin)
        if place in above:
            file.fail(name, "is a virtual dataset that is its own source")
        if place in done:
            continue
        _check_filters(owner, origin.name, origin)
        for part in origin.external or ():
            _check_raw_file(owner, origin.name, part)
            if not Path(part[0]).is_absolute() and owner.path.resolve().parent != Path.cwd():
                file.fail(
                    name, f"takes values from raw data in {part[0]}: HDF5 finds it only if run in {owner.path.parent}"
                )
        if origin.is_virtual:
            _check_sources(owner, origin.name, origin, above, done)
        done.add(place)


def _place(file: HDF5File, dataset: Any) -> Place:
    """Return the identity of a dataset, independent of its name: its file and its address in it."""
    return file.path.resolve(), int(h5py.h5o.get_info(dataset.id).addr)


def _sources(file: HDF5File, name: str, dataset: Any) -> Iterator[tuple[HDF5File, Any]]:
    """Yield the source datasets of a virtual one, each with its file."""
    for source in dataset.virtual_sources():
        named, inside = source.file_name, source.dset_name
        if "%b" in named + inside:
            yield from _numbered_sources(file, name, named, inside)
            continue
        named, inside = _instance(named, 0), _instance(inside, 0)
        other = file if named == "." else file.linked(name, named)
        yield _source(file, name, other, inside)


def _numbered_sources(file: HDF5File, name: str, named: str, inside: str) -> Iterator[tuple[HDF5File, Any]]:
    """Yield the datasets of a pattern such as frames%b.h5: from 0 to the first that is not there, as HDF5 does it."""
    for number in count():
        path, instance = _instance(named, number), _instance(inside, number)
        if number and path != "." and file.locate(path) is None:
            return
        with ExitStack() as stack:
            other = file
            if path != ".":  # not kept open, because there may be more files than the system can open
                other = stack.enter_context(closing(type(file)(file.allowed(name, path))))
            if number and not other.has(instance):
                return
            yield _source(file, name, other, instance)


def _source(file: HDF5File, name: str, other: HDF5File, inside: str) -> tuple[HDF5File, Any]:
    found = other.resolve(inside)
    if found is None or not isinstance(found[1], h5py.Dataset):
        file.fail(name, f"is virtual, and its source {other.path}:{inside} does not exist")
    return found


def _instance(pattern: str, number: int) -> str:
    """The name that HDF5 makes from a pattern and a number."""
    return re.sub("%[b%]", lambda found: str(number) if found[0] == "%b" else "%", pattern)


def _virtual_hole(file: HDF5File, name: str, dataset: Any) -> Hole | None:
    covered = 0
    for source in dataset.virtual_sources():
        limits = source.vspace.get_simple_extent_dims(True)
        if "%" in source.file_name + source.dset_name or h5py.h5s.UNLIMITED in limits:
            return None  # the dataset grows with its sources
        covered += source.vspace.get_select_npoints()
        other = file if source.file_name == "." else file.linked(name, source.file_name)
        stored = other.find(source.dset_name)
        if stored is not None and stored.hole is not None:
            start, _ = source.vspace.get_select_bounds()
            return tuple(map(int, start)), f"takes values from {other.path}:{source.dset_name}, which {stored.hole[1]}"
    if covered < dataset.size:
        return (0,) * len(dataset.shape), f"is virtual, and {dataset.size - covered} of its values have no source"
    return None
