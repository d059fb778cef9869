"""Write files that appear under their name only when they are complete and on the disk.

A file is written under a hidden name beside its own, and renamed when it is complete. If writing is interrupted by an
error, a signal or the end of the process, an older file stays unchanged. The hidden file of a killed process is removed
by the next process that writes in the same folder.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mpi_fast.errors import InputError, OutputError
from mpi_fast.leftovers import hidden_name, locked_file, sweep

NO_ROOM = errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Provide a temporary path beside `path`, and rename it to `path` if the block succeeds.

    Parameters
    ----------
    path : str or Path
        The file to create or replace; its folder must exist. A symbolic link is followed, and its target is created or
        replaced. The permissions of a replaced file are kept.

    Yields
    ------
    Path
        A hidden name in the same folder, with the same suffix. The block creates and closes the file.

    Raises
    ------
    InputError
        See `check_target`.
    OutputError
        If the file system is full, or refuses the file for another reason.

    Notes
    -----
    If the block ends early, also by KeyboardInterrupt, `path` stays unchanged and no temporary file is left.
    """
    target = check_target(Path(path))
    with writing_to(path), temporary_beside(target, target.suffix) as temporary:
        yield temporary
        _publish(temporary, target)


@contextmanager
def temporary_beside(target: Path, suffix: str) -> Iterator[Path]:
    """Provide a hidden name with this suffix in the folder of `target`; it is removed when the block ends."""
    sweep(target.parent)
    # A new name instead of tempfile.mkstemp, whose mode 0600 would survive a rename. It is short because
    # the target's own name may already have the maximum length of the file system.
    temporary = target.with_name(hidden_name(suffix))
    try:
        with locked_file(temporary):
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def writing_to(path: str | Path) -> Iterator[None]:
    """Convert errors of the system about storage to an OutputError that names the requested file."""
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def check_target(target: Path) -> Path:
    """Find the file that writing to `target` creates or replaces, after symbolic links are followed.

    Raises
    ------
    InputError
        If no file can be created there, or if it would replace a folder, a pipe, a device, or a read-only file.
    """
    real = Path(os.path.realpath(target))
    shown = f"{target}: cannot be written"
    if not real.parent.is_dir():
        raise InputError(f"{shown}: the folder {real.parent if target.is_symlink() else target.parent} does not exist")
    try:
        mode = real.stat(follow_symlinks=False).st_mode
    except FileNotFoundError:
        return real
    if stat.S_ISLNK(mode):
        raise InputError(f"{shown}: it is a symbolic link in a circle, and a file name was expected")
    if is_store(real):
        return real
    if stat.S_ISDIR(mode):
        raise InputError(f"{shown}: it is a folder, and a file name was expected")
    if not stat.S_ISREG(mode):
        raise InputError(f"{shown}: it is a pipe or a device, and a file name was expected")
    if not (mode & 0o222 and os.access(real, os.W_OK)):  # for root, only the permission bits show this
        raise InputError(f"{shown}: the file that is there is read-only")
    return real


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store that `formats.zarr` made, by its name and contents; an output may replace it."""
    if path.suffix.lower() != ".zarr" or not (path / ".zgroup").is_file():
        return False
    try:
        made_by = json.loads((path / ".zattrs").read_bytes())["made_by"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return isinstance(made_by, str) and made_by.startswith("mpi-fast ")


def _publish(temporary: Path, target: Path) -> None:
    """Rename after everything is on the disk, so that a power cut leaves the old file or the new one."""
    _keep_permissions(temporary, target)
    sync(temporary)
    temporary.replace(target)
    with suppress(OSError):  # not every file system supports this for folders
        sync(target.parent)


def _keep_permissions(temporary: Path, target: Path) -> None:
    """Give the new file the mode and, if permitted, owner and group of the file that it replaces."""
    try:
        old = target.stat()
    except FileNotFoundError:
        return
    new = temporary.stat()
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid) and hasattr(os, "chown"):
        with suppress(PermissionError):
            os.chown(temporary, old.st_uid, old.st_gid)
    temporary.chmod(stat.S_IMODE(old.st_mode))


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
