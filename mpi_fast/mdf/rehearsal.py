"""Read untrusted files first in a child process, which may crash, hang or run out of memory without harm."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import product
from pathlib import Path

import h5py

from mpi_fast.errors import FileFormatError, MPIFastError
from mpi_fast.mdf.access import Access, access

_MEMORY = 2 << 30  # memory limit of the child in bytes, in addition to a chunk of HDF5
_BLOCK = 8 << 20  # bytes read at once
_SPEED = 20e6  # bytes per second that any disk can deliver


def rehearse(path: Path, allowed: Access) -> None:
    """Read all of a file in a child process, once for each state of the file.

    Raises
    ------
    FileFormatError
        If the child process crashed, took too long or needed too much memory. Other faults of the file are not reported
        here, but by its reader.
    """
    state = path.stat()
    seconds = allowed.seconds + state.st_size / _SPEED
    problem = _rehearsed(str(path.resolve()), state.st_size, state.st_mtime_ns, allowed.external, seconds)
    if problem:
        raise FileFormatError(f"{path}: is damaged, or made to do harm: reading it in a child process {problem}")


@lru_cache(maxsize=64)
def _rehearsed(path: str, size: int, modified: int, external: bool, seconds: float) -> str:
    """Return how the child process failed, or an empty text if it succeeded."""
    command = [sys.executable, "-m", "mpi_fast.mdf.rehearsal", path, str(int(external))]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, env=environment, check=False)
    except subprocess.TimeoutExpired:
        return f"took longer than {seconds:.0f} s"
    if done.returncode < 0:
        return f"crashed HDF5 (signal {-done.returncode})"
    if done.returncode > 0:
        last = done.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1][:200]
        return f"failed: {last or f'exit code {done.returncode}'}"
    return ""


def read_everything(path: str) -> None:
    """Read every dataset of a file, as its readers would; datasets that they would refuse are skipped."""
    from mpi_fast.mdf.hdf5 import HDF5File

    file = HDF5File(path)
    for name in _datasets(file._h5):
        try:
            stored = file.find(name)
            if stored is not None and stored.hole is None:  # values that were never written are harmless zeros
                for block in _blocks(stored.shape, stored.dtype.itemsize):
                    stored.read(block)
        except MPIFastError:
            continue
    file.close()


def _datasets(root: h5py.Group) -> Iterator[str]:
    """Yield the names of all datasets, and of all links, each group visited once."""
    waiting, seen = [""], set()
    while waiting:
        prefix = waiting.pop()
        try:
            group = root[prefix or "/"]
            address = h5py.h5o.get_info(group.id).addr
            if address in seen:
                continue
            seen.add(address)
            for step in group:
                kind = group.id.links.get_info(step.encode("utf-8", "surrogateescape")).type
                hard = kind == h5py.h5l.TYPE_HARD
                is_group = hard and h5py.h5o.get_info(group.id, step.encode("utf-8", "surrogateescape")).type == 0
                if is_group:
                    waiting.append(f"{prefix}/{step}")
                else:
                    yield f"{prefix}/{step}"
        except Exception:  # the reader will report it
            continue


def _blocks(shape: tuple[int, ...], item: int) -> Iterator[tuple[slice, ...]]:
    """Cut an array into blocks of bounded size, with complete last axes as far as they fit."""
    steps, room = list(shape), max(1, _BLOCK // max(item, 1))
    for axis in range(len(shape)):
        inner = math.prod(steps[axis + 1 :])
        steps[axis] = max(1, min(shape[axis], room // max(inner, 1)))
    for start in product(*(range(0, length, step) for length, step in zip(shape, steps, strict=True))):
        yield tuple(slice(first, first + step) for first, step in zip(start, steps, strict=True))


def _main() -> None:
    try:
        import resource  # not available on Windows, where only the time is limited

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except ImportError:
        pass
    # Other faults of the file are reported by its reader.
    with access(external=sys.argv[2] == "1", untrusted=False), suppress(MPIFastError):
        read_everything(sys.argv[1])


if __name__ == "__main__":
    _main()
