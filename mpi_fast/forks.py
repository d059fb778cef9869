"""What threads of the parent hold when a process forks must not hold up the child, in which they do not exist."""

import ctypes
import os
import weakref
from typing import Protocol


class Forking(Protocol):
    """What has threads or locks of its own."""

    def after_fork(self) -> object:
        """Make locks anew; return what needs threads of the parent, which is never used or freed again."""
        ...


_living: "weakref.WeakSet[Forking]" = weakref.WeakSet()


def renew_in_children(one: Forking) -> None:
    """Have `Forking.after_fork` called in processes that fork from this one, for as long as the object lives."""
    _living.add(one)


def _after_fork() -> None:
    for one in list(_living):
        # Freeing a network's session waits for its threads, which would be for ever: it keeps a reference to itself.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one.after_fork()))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork)
