"""Read a complete file of possibly unknown origin, which must be a regular file of limited size."""

import stat
from pathlib import Path

from mpi_fast.errors import FileFormatError, MPIFastError


def read_regular(path: str | Path, largest: int, expected: str, error: type[MPIFastError] = FileFormatError) -> bytes:
    """The content of a file.

    Parameters
    ----------
    path : str or Path
    largest : int
        Largest size in bytes, which is checked before anything is read.
    expected : str
        Description of the expected file, for the message.
    error : type
        Error class for a file that is missing, unreadable, too large, or a folder, a pipe or a device.
    """
    path = Path(path)
    try:
        facts = path.stat()  # opening a pipe would wait for its writer
        if not stat.S_ISREG(facts.st_mode):
            raise error(f"{path}: not a file; expected {expected}")
        if facts.st_size > largest:
            raise error(f"{path}: {facts.st_size} bytes, expected {expected}, of at most {largest}")
        with path.open("rb") as file:
            content = file.read(facts.st_size + 1)
    except FileNotFoundError as problem:
        raise error(f"{path}: no such file; expected {expected}") from problem
    except (OSError, ValueError) as problem:  # ValueError for a name with a zero byte
        raise error(f"{path}: cannot be read: {getattr(problem, 'strerror', None) or problem}") from problem
    if len(content) != facts.st_size:
        raise error(f"{path}: it changed while it was read")
    return content
