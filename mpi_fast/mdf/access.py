"""What may be opened: regular files, and what they point to only inside their own folder."""

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
    """How far files are trusted.

    Attributes
    ----------
    external : bool
        Follow external links, virtual datasets and external raw data out of a file's own folder.
    untrusted : bool
        Let a child process read each file first, whole: what crashes, hangs or eats memory there is refused.
    seconds : float
        How long the child process may take, beside the time that the file's size asks for.
    """

    external: bool = False
    untrusted: bool = False
    seconds: float = 30.0


_CAREFUL = Access()
_access: ContextVar[Access] = ContextVar("access", default=_CAREFUL)


@contextmanager
def access(**options: Any) -> Iterator[Access]:
    """Trust all files that are opened in this block so far: ``with access(untrusted=True): ...``.

    Takes the attributes of `Access`; what is not given stays as it is outside of the block.
    """
    token = _access.set(replace(_access.get(), **options))
    try:
        yield _access.get()
    finally:
        _access.reset(token)


def current_access() -> Access:
    """Return how far files are trusted here."""
    return _access.get()


def open_hdf5(path: str | Path) -> Any:
    """Open an HDF5 file read-only, as `access` allows; FileFormatError says what is wrong with it if that fails."""
    path = Path(path)
    size = regular_size(path)
    rehearse_if_untrusted(path)
    try:
        return h5py.File(path, "r")
    except Exception as error:  # HDF5 raises what it likes on damaged files
        if "truncated" in str(error):
            problem = "the file is truncated; copy or download it again"
        elif "signature not found" in str(error):
            empty = "the file is empty" if size == 0 else "this is not an HDF5 file"
            problem = f"{empty}; an MDF (HDF5) file was expected"
        else:
            problem = f"the file cannot be opened: {error}"
        raise FileFormatError(f"{path}: {problem}") from error


def rehearse_if_untrusted(path: Path) -> None:
    """Let a child process read an HDF5 file first, if `access` says so; FileFormatError if that does harm."""
    if current_access().untrusted:
        from mpi_fast.mdf.rehearsal import rehearse  # which reads files itself

        rehearse(path, current_access())


def regular_size(path: Path) -> int:
    """Return the size of a file in bytes; FileFormatError unless it is one: not a folder, a pipe or a device."""
    try:
        found = path.stat()  # does not wait, as opening a pipe would
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
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
    """Find a file that another one in `folder` names, where HDF5 looks for it; None if it is nowhere."""
    name = Path(named)
    candidates = [name, folder / name.name] if name.is_absolute() else [folder / name, Path.cwd() / name]
    return next((path for path in candidates if path.exists()), None)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a file lies in a folder or below it, links and dots resolved."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
