"""Signals that end a process, as exceptions: so that whatever cleans up after itself does."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, TypeVar

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGINT") if hasattr(signal, name)]
LATER = 0.01  # s
_uninterrupted: set[CodeType] = set()

Function = TypeVar("Function", bound=Callable[..., Any])


class Terminated(KeyboardInterrupt):
    """A signal that ends the process has come; what handles Ctrl+C handles it alike.

    Attributes
    ----------
    number : int
        Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def uninterrupted(function: Function) -> Function:
    """Have `ending_signals` wait while a function runs: its caller is a library that would lose the exception."""
    _uninterrupted.add(function.__code__)
    return function


@contextmanager
def ending_signals(numbers: Sequence[int] = ENDING) -> Iterator[None]:
    """Raise `Terminated` in the block for signals that would end the process.

    Those that are handled otherwise, or ignored, as nohup has it, stay so.
    """
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    for number in taken:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _end(number: int, frame: FrameType | None) -> None:
    while frame is not None:
        if frame.f_code in _uninterrupted:
            timer = threading.Timer(LATER, os.kill, (os.getpid(), number))
            timer.daemon = True
            timer.start()
            return
        frame = frame.f_back
    for other in ENDING:  # a second one must not stop the cleaning up after the first
        if signal.getsignal(other) is _end:
            signal.signal(other, signal.SIG_IGN)
    raise Terminated(number)
