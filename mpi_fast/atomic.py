"""Files that appear under their name only when they are whole."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpi_fast.errors import InputError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Lend a temporary path beside `path`, and rename it to `path` if the block succeeds.

    Parameters
    ----------
    path : str or Path
        The file to create or replace; its folder must exist.

    Yields
    ------
    Path
        A hidden name in the same folder, with the same suffix. The block creates and closes the file.

    Raises
    ------
    InputError
        See `check_target`.

    Notes
    -----
    Whatever ends the block early, KeyboardInterrupt included, leaves `path` as it was and no temporary file.
    """
    target = Path(path)
    check_target(target)
    with temporary_beside(target, target.suffix) as temporary:
        yield temporary
        temporary.replace(target)


@contextmanager
def temporary_beside(target: Path, suffix: str) -> Iterator[Path]:
    """Lend a hidden name with this suffix in the folder of `target`; what is there when the block ends is removed."""
    # A fresh name rather than tempfile.mkstemp, whose mode 0600 would survive a rename; kept short because
    # the target's own name may already be as long as the file system allows.
    temporary = target.with_name(f".{uuid.uuid4().hex[:12]}{suffix}")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def check_target(target: Path) -> None:
    """InputError if no file can appear at `target`, or would replace what is no file: a folder, a pipe, a device."""
    if not target.parent.is_dir():
        raise InputError(f"{target}: cannot be written: the folder {target.parent} does not exist")
    if target.is_dir() and not is_store(target):
        raise InputError(f"{target}: cannot be written: it is a folder, and a file name was expected")
    if target.exists() and not target.is_file() and not target.is_dir():
        raise InputError(f"{target}: cannot be written: it is a pipe or a device, and a file name was expected")


def is_store(path: Path) -> bool:
    """Whether a folder was written by Zarr, by its name and what is in it: one that an output may replace."""
    return path.suffix.lower() == ".zarr" and (path / ".zgroup").is_file()
