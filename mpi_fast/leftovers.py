"""Temporary files of processes that were killed: named so that they are known as such, and removed by the next process.

A name holds the host, the process and when that started. While a file is written, its process also holds a lock on it.
A file is removed only if its host is this one, its process is gone, and nobody holds the lock: containers may share
the name of a host and number their processes alike.
"""

import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

try:
    import fcntl
except ImportError:  # on Windows: the names alone tell
    fcntl = None  # type: ignore[assignment]

PREFIX = ".mpi-fast-"
_NAME = re.compile(re.escape(PREFIX) + r"([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}(\..*)?")


def hidden_name(suffix: str) -> str:
    """A new name for a temporary file of this process."""
    pid = os.getpid()
    return f"{PREFIX}{_host()}-{pid}-{_started(pid)}-{uuid.uuid4().hex[:8]}{suffix}"


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Create an empty file and hold a lock on it: others open it by its name and write."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Take the lock of an open file, which lasts until it is closed; False where another process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system knows no locks
        return True
    return True


def sweep(folder: Path) -> None:
    """Remove what killed processes of this host left in a folder."""
    with suppress(OSError):  # of a folder that cannot be listed, and of files that others remove meanwhile
        for entry in os.scandir(folder):
            match = _NAME.fullmatch(entry.name) if entry.name.startswith(PREFIX) else None
            if match and match[1] == _host() and not _alive(int(match[2]), int(match[3])):
                _remove_unlocked(Path(entry.path))


def _remove_unlocked(path: Path) -> None:
    if path.is_dir():  # which nobody can lock
        shutil.rmtree(path, ignore_errors=True)
        return
    descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    try:
        if lock(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)


def _host() -> str:
    return sha256(socket.gethostname().encode()).hexdigest()[:8]


def _alive(pid: int, started: int) -> bool:
    """Whether the process lives that had this number at that time."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's, which is alive
        pass
    return _started(pid) == started


def _started(pid: int) -> int:
    """When a process started, in the system's ticks since it booted; 0 where that is not told."""
    try:
        # Behind the name of the program, which is in parentheses and may hold any.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
