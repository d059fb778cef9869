"""The folder of everything that is computed once for a machine and kept: compiled kernels, engines."""

import os
from pathlib import Path


def cache_folder(kind: str) -> Path:
    """Folder for one kind of content, which may not exist yet.

    It lies in the folder that the environment variable ``MPI_FAST_CACHE`` names; without it, in ``mpi-fast`` in the
    user's folder for caches, ``XDG_CACHE_HOME`` or ``~/.cache``. Empty variables count as not set.
    """
    given = os.environ.get("MPI_FAST_CACHE")
    users = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(given) if given else Path(users, "mpi-fast")) / kind
