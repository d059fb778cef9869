"""One thread for BLAS while the network's own threads compute: waiting BLAS threads would starve them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
_inside = 0  # calls in all threads that want BLAS to have one thread
_limit: Any = None
_found: ThreadpoolController | None = None


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Limit BLAS to one thread; whoever leaves last, of all threads of the process, restores what was before.

    The limit is the process's. Were it set and restored by each thread for itself, a thread that entered while another
    was inside would restore that one's limit for good.
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
    """The libraries of this process, looked for once: that takes milliseconds."""
    global _found
    _found = _found or ThreadpoolController()
    return _found


def _after_fork() -> None:
    """In a child there is one thread, and it is in none of the calls of its parent's threads."""
    global _lock, _inside
    _lock = threading.Lock()
    if _inside:
        _limit.restore_original_limits()
        _inside = 0


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
