"""Read HDF5 files of any origin: links are checked before they are followed, and every exception is converted."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import FileFormatError, FileWarning, MPIFastError
from mpi_fast.mdf.access import current_access, is_inside, locate, open_hdf5
from mpi_fast.mdf.heaps import check_heaps
from mpi_fast.mdf.storage import check_storage, find_hole

_MOST_LINKS = 16  # largest number of links to one dataset
_GROUP, _DATASET = 0, 1  # of H5O_type_t

# Larger sizes are checked against the size of the file: bytes, and the largest compression by filters.
_SMALL, _MOST_COMPRESSED = 1 << 20, 1100


class HDF5File:
    """An HDF5 file open for reading; everything in it is checked.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    path : Path
    notes : list of str
        Unusual facts about the file, and decisions of the reader, as texts for users.

    Raises
    ------
    FileFormatError
        If the file is missing, a folder, a device, truncated, or not HDF5.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.notes: list[str] = []
        self._h5 = open_hdf5(self.path)
        self._linked: dict[Path, HDF5File] = {}
        self._found: dict[str, Stored | None] = {}
        self._state = self._stat()

    def close(self) -> None:
        """Close the file and those it links to; it may be closed twice."""
        for linked in self._linked.values():
            linked.close()
        self._h5.close()

    def fail(self, name: str, problem: str) -> NoReturn:
        """Raise FileFormatError for a dataset."""
        raise FileFormatError(f"{self.path}: {name} {problem}")

    def warn(self, name: str, problem: str) -> None:
        """Report an unusual dataset once, in `notes` and as a FileWarning."""
        note = f"{name} {problem}"
        if note not in self.notes:
            self.notes.append(note)
            warnings.warn(f"{self.path}: {note}", FileWarning, stacklevel=3)

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Convert any error of HDF5, and of NumPy about its types and sizes, to a FileFormatError."""
        try:
            yield
        except MPIFastError:
            raise
        except Exception as error:
            reason = "not enough memory for it" if isinstance(error, MemoryError) else str(error) or repr(error)
            raise FileFormatError(f"{self.path}: {name} cannot be read, the file is damaged: {reason}") from error

    def has(self, name: str) -> bool:
        """Whether there is a dataset or group of that name."""
        return self.resolve(name) is not None

    def members(self, name: str) -> list[str]:
        """Return the names in a group; none if there is no such group."""
        with self.guard(name):
            node = self.resolve(name)
            return list(node[1]) if node is not None and isinstance(node[1], h5py.Group) else []

    def find(self, name: str) -> Stored | None:
        """Return the dataset `name`, or None if there is none or it has no values.

        Raises
        ------
        FileFormatError
            If it is a group or a dangling link, cannot be read, or stores values in a place that is not permitted.
        """
        if name not in self._found:
            with self.guard(name):
                self._found[name] = self._find(name)
        return self._found[name]

    def _find(self, name: str) -> Stored | None:
        node = self.resolve(name)
        if node is None:
            return None
        file, item = node
        if not isinstance(item, h5py.Dataset):
            self.fail(name, "is a group; a dataset was expected")
        return None if item.shape is None else Stored(file, name, item)

    def resolve(self, name: str, requested: str = "", links: int = 0) -> tuple[HDF5File, Any] | None:
        """Resolve a name step by step, so that HDF5 follows no link itself; return the file and h5py's item."""
        node: Any = self._h5
        requested = requested or name
        steps = [step for step in name.split("/") if step not in ("", ".")]
        with self.guard(requested):
            for number, step in enumerate(steps):
                here = step.encode("utf-8", "surrogateescape")
                if not isinstance(node, h5py.Group) or not node.id.links.exists(here):
                    return None
                kind = node.id.links.get_info(here).type
                if kind != h5py.h5l.TYPE_HARD:
                    if links == _MOST_LINKS:
                        self.fail(requested, "leads through links in a circle; a dataset was expected")
                    return self._follow(requested, node, here, "/".join(steps[number + 1 :]), links + 1)
                node = self._open(node, here)
        return self, node

    def _follow(self, name: str, group: Any, step: bytes, rest: str, links: int) -> tuple[HDF5File, Any]:
        kind, value = group.id.links.get_info(step).type, group.id.links.get_val(step)
        if kind == h5py.h5l.TYPE_SOFT:
            file, target = self, os.fsdecode(value)
            target = target if target.startswith("/") else f"{group.name}/{target}"
            found = self.resolve(f"{target}/{rest}", name, links)
        elif kind == h5py.h5l.TYPE_EXTERNAL:
            named, target = map(os.fsdecode, value)
            file = self.linked(name, named)
            found = file.resolve(f"{target}/{rest}", name, links)
        else:
            self.fail(name, "is a link of a kind that is not known; a dataset was expected")
        if found is None:
            where = "" if file is self else f" in {file.path}"
            self.fail(name, f"is a link to {_short(target)}{where}, which does not exist; a dataset was expected")
        return found

    def linked(self, name: str, named: str) -> HDF5File:
        """Open a file that this one names in the dataset or link `name`; it stays open as long as this file."""
        path = self.allowed(name, named)
        if path not in self._linked:
            self._linked[path] = HDF5File(path)
        return self._linked[path]

    def allowed(self, name: str, named: str) -> Path:
        """Return the path of a file that this one names, if it exists and may be read."""
        folders, path = self._folders(), self.locate(named)
        if not current_access().external and not any(is_inside(path or folder / named, folder) for folder in folders):
            self.fail(
                name,
                f"lies in another file, {_short(named)}, outside of the folder {folders[0]}; allow it with "
                "access(external=True), --external on the command line, if you trust this file",
            )
        if path is None:
            self.fail(name, f"lies in another file, {_short(named)}, which does not exist")
        return path

    def locate(self, named: str) -> Path | None:
        """Return the path of a file that this one names, permitted or not; None if it does not exist."""
        return next((found for folder in self._folders() if (found := locate(named, folder))), None)

    def _folders(self) -> tuple[Path, Path]:
        """Folders of named files. If this file is a link, these are the folders of the link and of its target."""
        return self.path.parent, self.path.resolve().parent

    def _open(self, group: Any, step: bytes) -> Any:
        kind = h5py.h5o.get_info(group.id, step).type
        if kind == _GROUP:
            return h5py.Group(h5py.h5g.open(group.id, step))
        if kind != _DATASET:
            return None
        dataset = h5py.h5d.open(group.id, step)
        if dataset.get_create_plist().get_external_count():
            del dataset  # HDF5 looks for raw data in the working directory unless the folder of the file is set
            properties = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
            properties.set_efile_prefix(os.fsencode(self.path.resolve().parent))
            dataset = h5py.h5d.open(group.id, step, properties)
        return h5py.Dataset(dataset)

    def largest_expansion(self) -> int:
        """Return the largest number of bytes that the file, and those it links to, can contain after decompression."""
        own = max(_SMALL, _MOST_COMPRESSED * self._state[0])
        return own + sum(linked.largest_expansion() for linked in self._linked.values())

    def _stat(self) -> tuple[int, int]:
        with self.guard("the file"):
            found = os.fstat(self._h5.id.get_vfd_handle())
            return found.st_size, found.st_mtime_ns

    def check_unchanged(self, name: str) -> None:
        """Raise FileFormatError if the file was written to since it was opened."""
        if self._stat() != self._state:
            self.fail(name, "cannot be trusted: the file was changed while it was read; try again when it is whole")


class Stored:
    """A dataset: its shape and type, and its values on demand.

    Attributes
    ----------
    name : str
        Name as requested.
    shape : tuple of int
    dtype : numpy dtype
    """

    def __init__(self, file: HDF5File, name: str, dataset: Any) -> None:
        self.file, self.name, self._dataset = file, name, dataset
        self.shape: tuple[int, ...] = tuple(dataset.shape)
        self.dtype: np.dtype[Any] = dataset.dtype
        check_storage(file, name, dataset)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape, dtype=object))

    @cached_property
    def hole(self) -> tuple[tuple[int, ...], str] | None:
        """Index of the first value that was never written, and the reason; None if all were written."""
        with self.file.guard(self.name):
            return find_hole(self.file, self.name, self._dataset)

    def read(self, key: Any = ()) -> NDArray[Any]:
        """Read values; the whole of a dataset only if the file is large enough to hold it."""
        with self.file.guard(self.name):
            if key == ():
                self._check_size()
            check_heaps(self.file, self.name, self._dataset)
            values = self._dataset[key]
            self.file.check_unchanged(self.name)
            return np.asarray(values)

    def _check_size(self) -> None:
        declared = self.size * self.dtype.itemsize
        held = 0 if self.hole else _MOST_COMPRESSED * max(self._dataset.id.get_storage_size(), 1)
        if self._dataset.is_virtual:
            held = self.file.largest_expansion()
        elif self._dataset.external:
            held = declared  # already checked
        if declared > max(_SMALL, held):
            self.file.fail(self.name, f"declares {declared / 2**20:.0f} MiB, more than the file can hold")


def _short(text: str) -> str:
    """A text from a file for a message: shortened, and without control characters."""
    return repr(text if len(text) <= 80 else text[:77] + "...")
