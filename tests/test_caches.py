"""One rule for the folders of all caches."""

from pathlib import Path

import pytest

from mpi_fast.caches import cache_folder
from mpi_fast.kernels import compile as compiling
from mpi_fast.kernels.launch import Kernel


@pytest.mark.parametrize(
    ("given", "users", "expected"),
    [
        ("/given", "/users", "/given"),
        ("", "/users", "/users/mpi-fast"),
        (None, "/users", "/users/mpi-fast"),
        (None, "", Path.home() / ".cache" / "mpi-fast"),
        (None, None, Path.home() / ".cache" / "mpi-fast"),
    ],
)
def test_kernels_and_engines_are_kept_by_the_same_rule(monkeypatch, given, users, expected):
    for name, value in (("MPI_FAST_CACHE", given), ("XDG_CACHE_HOME", users)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(compiling, "compiler_version", lambda: (13, 0))
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    assert cache_folder("tensorrt") == Path(expected) / "tensorrt"
    assert compiling.cached(Kernel("image"), "sm_90").parent == Path(expected) / "kernels"
