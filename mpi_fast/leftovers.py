"""Remove temporary files of killed processes, which are recognised by their names.

A name contains the host, the process and its start time. While a file is written, its process also holds a lock on it.
A file is removed only if it is of this host, its process has ended, and no process holds the lock. The lock is needed
because containers may have the same host name and the same process numbers. Nothing is removed on Windows, where it is
not known which processes run.
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
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = ".mpi-fast-"
REPLACED = ".replaced"  # suffix of the place of a folder while a new one takes its name, see `atomic_folder`
_NAME = re.compile(re.escape(PREFIX) + r"([0-9a-f]{8})-(\d+)-(\d+)-[0-9a-f]{8}(\..*)?")


def hidden_name(suffix: str) -> str:
    """A new name for a temporary file of this process."""
    pid = os.getpid()
    return f"{PREFIX}{_host()}-{pid}-{_started(pid)}-{uuid.uuid4().hex[:8]}{suffix}"


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """Create an empty file and hold a lock on it while other code opens it by its name and writes."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def lock(descriptor: int) -> bool:
    """Take the lock of an open file, which lasts until it is closed; False if another process has it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system does not support locks
        return True
    return True


def abandoned(folder: Path) -> list[Path]:
    """Hidden names of killed processes of this host in a folder; none if it cannot be listed, and on Windows."""
    if fcntl is None:  # there, os.kill(pid, 0) would end the process instead of looking for it
        return []
    found = []
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _NAME.fullmatch(entry.name) if entry.name.startswith(PREFIX) else None
            if match and match[1] == _host() and not _alive(int(match[2]), int(match[3])):
                found.append(Path(entry.path))
    return found


def sweep(folder: Path) -> None:
    """Remove temporary files of killed processes of this host in a folder, except folders that they were replacing."""
    for path in abandoned(folder):
        with suppress(OSError):  # one that cannot be removed, or that another process removes, is no obstacle
            if path.suffix == REPLACED:
                path.rmdir()  # if it is empty
            else:
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    if path.is_dir():  # a folder cannot be locked
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
    """Whether the process with this number and start time still runs."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a running process of another user
        pass
    return _started(pid) == started


def _started(pid: int) -> int:
    """When a process started, in the system's ticks since it booted; 0 if unknown."""
    try:
        # After the name of the program in parentheses, which may contain parentheses itself.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return 0
