"""Write folders that appear under their name only when they are complete and on the disk.

A folder cannot be replaced in one step. The old one is moved to a hidden place before the new one gets its name, and is
removed after that. If the process is killed in between, the old folder stays in its hidden place, and the next process
that writes this folder moves it back before anything else; see `leftovers` for which processes this holds.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mpi_fast.atomic import sync, writing_to
from mpi_fast.errors import InputError
from mpi_fast.leftovers import REPLACED, abandoned, hidden_name, sweep


@contextmanager
def atomic_folder(
    path: Path, may_replace: Callable[[Path], bool], what: str, *, outside: bool = False
) -> Iterator[Path]:
    """Provide a temporary name for a folder, and rename it to `path` if the block succeeds.

    Parameters
    ----------
    path : Path
        The folder to create or replace; its parent must exist. A symbolic link is followed.
    may_replace : callable
        Whether an existing file or folder may be replaced.
    what : str
        What may be replaced, for messages: "a Zarr store".
    outside : bool
        Put the hidden names beside the parent of `path` instead of beside `path`, because another program reads all
        folders in the parent.

    Yields
    ------
    Path
        A hidden name with the suffix of `path`. The block creates the folder.

    Raises
    ------
    InputError
        If the parent is missing, or if `path` exists and may not be replaced.
    OutputError
        If the file system is full.

    Notes
    -----
    If the block ends early, also by KeyboardInterrupt, `path` stays unchanged and no temporary folder is left.
    """
    real = Path(os.path.realpath(path))
    if not real.parent.is_dir():
        raise InputError(f"{real.parent}: no such folder")
    folder = real.parent.parent if outside else real.parent
    sweep(folder)
    for place in abandoned(folder):
        if place.suffix == REPLACED and (place / real.relative_to(folder)).exists():
            _give_back(real, place)
    if os.path.lexists(real) and not may_replace(real):
        raise InputError(f"{path}: exists and is not {what}; not replaced")
    temporary = folder / hidden_name(real.suffix)
    try:
        with writing_to(path):
            yield temporary
            _sync_all(temporary)
            _publish(temporary, real, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(new: Path, path: Path, folder: Path) -> None:
    """Give the new folder its name; after a failure, the old folder has it again."""
    if not path.exists():
        new.rename(path)
    else:
        place = folder / hidden_name(REPLACED)
        old = place / path.relative_to(folder)
        old.parent.mkdir(parents=True)
        try:
            path.rename(old)
            new.rename(path)
        finally:
            _give_back(path, place)
    with suppress(OSError):  # not every file system supports this for folders
        sync(path.parent)


def _give_back(path: Path, place: Path) -> None:
    """Move the old folder in this hidden place back, unless a new one has its name, and remove the place."""
    old = place / path.relative_to(place.parent)
    if old.exists() and not os.path.lexists(path):
        old.rename(path)
    # Its new name says that nothing in it is needed, so that a folder that is partly removed never comes back.
    shutil.rmtree(place.rename(place.with_name(hidden_name(""))), ignore_errors=True)


def _sync_all(folder: Path) -> None:
    """Wait until all files of a folder are on the disk."""
    for place, _, names in os.walk(folder):
        for name in names:
            sync(Path(place, name))
        with suppress(OSError):  # as in `_publish`
            sync(Path(place))
