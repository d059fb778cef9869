"""Which files may be opened: regular files, and files that they refer to only inside their own folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py

from mpi_fast.errors import FileFormatError


@dataclass(frozen=True)
class Access:
    """The trust in files.

    Attributes
    ----------
    external : bool
        Follow external links, virtual datasets and external raw data outside a file's own folder.
    untrusted : bool
        First read each file completely in a child process; files that crash it, hang it or exceed its memory are
        refused.
    seconds : float
        Time limit of the child process, in addition to a time proportional to the size of the file.
    """

    external: bool = False
    untrusted: bool = False
    seconds: float = 30.0


_CAREFUL = Access()
_access: ContextVar[Access] = ContextVar("access", default=_CAREFUL)


@contextmanager
def access(**options: Any) -> Iterator[Access]:
    """Set the trust in all files opened in a block: ``with access(untrusted=True): ...``.

    The options are attributes of `Access`; those not given keep their value from outside the block.
    """
    token = _access.set(replace(_access.get(), **options))
    try:
        yield _access.get()
    finally:
        _access.reset(token)


def current_access() -> Access:
    """Return the current trust in files."""
    return _access.get()


def open_hdf5(path: str | Path) -> Any:
    """Open an HDF5 file read-only, as `access` allows; raises FileFormatError if that fails."""
    path = Path(path)
    size = regular_size(path)
    rehearse_if_untrusted(path)
    try:
        return h5py.File(path, "r")
    except Exception as error:  # HDF5 may raise anything on damaged files
        if "truncated" in str(error):
            problem = "the file is truncated; copy or download it again"
        elif "signature not found" in str(error):
            empty = "the file is empty" if size == 0 else "this is not an HDF5 file"
            problem = f"{empty}; an MDF (HDF5) file was expected"
        else:
            problem = f"the file cannot be opened: {error}"
        raise FileFormatError(f"{path}: {problem}") from error


def rehearse_if_untrusted(path: Path) -> None:
    """If `access` requires it, first read an HDF5 file in a child process; raises FileFormatError if that fails."""
    if current_access().untrusted:
        from mpi_fast.mdf.rehearsal import rehearse  # avoids a circular import

        rehearse(path, current_access())


def regular_size(path: Path) -> int:
    """Return the size of a regular file in bytes; raises FileFormatError for folders, pipes and devices."""
    try:
        found = path.stat()  # unlike opening, this does not wait for a pipe
    except (OSError, ValueError) as error:  # ValueError for a name with a zero byte
        if isinstance(error, FileNotFoundError):
            raise FileFormatError(f"{path}: there is no such file; an MDF file was expected") from error
        reason = getattr(error, "strerror", None) or error
        raise FileFormatError(f"{path}: the file cannot be opened: {reason}") from error
    if stat.S_ISDIR(found.st_mode):
        raise FileFormatError(f"{path}: this is a folder; an MDF file was expected")
    if not stat.S_ISREG(found.st_mode):
        raise FileFormatError(f"{path}: this is a pipe or a device; an MDF file was expected")
    return found.st_size


def locate(named: str, folder: Path) -> Path | None:
    """Find a file named by another one in `folder`, in the places where HDF5 looks; None if there is none."""
    name = Path(named)
    candidates = [name, folder / name.name] if name.is_absolute() else [folder / name, Path.cwd() / name]
    return next((path for path in candidates if path.exists()), None)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder or below it, after links and dots are resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
