"""Write folders that appear under their name only when they are complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mpi_fast.atomic import check_target, writing_to
from mpi_fast.leftovers import hidden_name, sweep


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Provide a temporary name beside `path` for a folder, and rename it to `path` if the block succeeds.

    Only an existing Zarr folder is replaced. It stays until the new one is complete, and is missing only for the moment
    between two renamings.

    Raises
    ------
    InputError
        See `check_target`.
    """
    check_target(path)
    sweep(path.parent)
    temporary = path.with_name(hidden_name(path.suffix))
    try:
        with writing_to(path):
            yield temporary
            _replace(path, temporary)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(path: Path, new: Path) -> None:
    if not path.exists():
        new.rename(path)
        return
    old = path.with_name(hidden_name(path.suffix))
    path.rename(old)
    try:
        new.rename(path)
    except OSError:
        old.rename(path)
        raise
    shutil.rmtree(old)
