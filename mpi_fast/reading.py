"""Reading a whole file that somebody else may have written: a regular one, of bounded size, or a clear error."""

import stat
from pathlib import Path

from mpi_fast.errors import FileFormatError, MPIFastError


def read_regular(path: str | Path, largest: int, expected: str, error: type[MPIFastError] = FileFormatError) -> bytes:
    """The content of a file.

    Parameters
    ----------
    path : str or Path
    largest : int
        Bytes, which it may have at most. It is asked for its size before anything is read.
    expected : str
        What should have been there, for the message.
    error : type
        Raised for a file that is missing, cannot be read, is too large, or no file: a folder, a pipe, a device.
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
    except (OSError, ValueError) as problem:  # ValueError: a name with a zero byte
        raise error(f"{path}: cannot be read: {getattr(problem, 'strerror', None) or problem}") from problem
    if len(content) != facts.st_size:
        raise error(f"{path}: it changed while it was read")
    return content
