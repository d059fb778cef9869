"""Limit BLAS to one thread while the network's threads compute, because waiting BLAS threads would slow them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside = 0  # number of calls, over all threads, that require one BLAS thread
_limit: Any = None
_found: ThreadpoolController | None = None


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread; the last of all threads of the process to leave restores the previous limit.

    The limit applies to the whole process. If each thread set and restored it, a thread that entered while another was
    inside would restore the limit of one thread permanently.
    """
    global _inside, _limit
    with _lock:
        if not _inside:
            _limit = _controller().limit(limits=1, user_api="blas")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _limit.restore_original_limits()


def _controller() -> ThreadpoolController:
    """The BLAS libraries of this process; the search takes milliseconds and is done once."""
    global _found
    _found = _found or ThreadpoolController()
    return _found


def _after_fork() -> None:
    """Reset the count in a child process, where the calls of the parent's threads do not continue."""
    global _lock, _inside
    _lock = threading.Lock()
    if _inside:
        _limit.restore_original_limits()
        _inside = 0


if hasattr(os, "register_at_fork"):  # not available on Windows
    os.register_at_fork(after_in_child=_after_fork)
