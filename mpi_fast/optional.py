"""Import of optional libraries."""

from collections.abc import Iterator
from contextlib import contextmanager

from mpi_fast.errors import MPIFastError
from mpi_fast.termination import raise_lost


@contextmanager
def optional(
    message: str, kind: type[MPIFastError] = MPIFastError, *, failures: tuple[type[Exception], ...] = (ImportError,)
) -> Iterator[None]:
    """Raise errors of the imports in the block as an error of this package.

    Parameters
    ----------
    message : str
        What needs which library, and how to install it. Errors of libraries that are present are added.
    kind : type
        Class of the error that is raised.
    failures : tuple of types
        Errors by which a library that is missing, or not complete, shows itself.

    Raises
    ------
    Terminated, KeyboardInterrupt
        If the import failed because a signal ended it. Libraries in C turn this exception into an ImportError.
    """
    try:
        yield
    except failures as error:
        raise_lost(error)
        present = "" if isinstance(error, ModuleNotFoundError) else f" ({error})"
        raise kind(message + present) from error
