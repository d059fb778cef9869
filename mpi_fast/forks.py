"""Reset locks in a forked child process, because threads of the parent that hold them do not exist there."""

import ctypes
import os
import weakref
from typing import Protocol


class Forking(Protocol):
    """An object with its own threads or locks."""

    def after_fork(self) -> object:
        """Make new locks; return objects that need threads of the parent, which are never used or freed again."""
        ...


_living: "weakref.WeakSet[Forking]" = weakref.WeakSet()


def renew_in_children(one: Forking) -> None:
    """Call `Forking.after_fork` in forked child processes, as long as the object exists."""
    _living.add(one)


def _after_fork() -> None:
    for one in list(_living):
        # Freeing a network's session would wait for its missing threads for ever, so a reference keeps it alive.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one.after_fork()))


if hasattr(os, "register_at_fork"):  # not available on Windows
    os.register_at_fork(after_in_child=_after_fork)
