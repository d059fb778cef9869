"""Signals that end a process, as exceptions: so that whatever cleans up after itself does."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any, TypeVar

ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGINT") if hasattr(signal, name)]
LATER = 0.05  # s
_uninterrupted: set[CodeType] = set()

_enders: "list[_Ender]" = []

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
    """Have `ending_signals` wait while a function runs whose caller, a library, would lose the exception."""
    _uninterrupted.add(function.__code__)
    return function


def raise_waiting() -> None:
    """Raise `Terminated` if a signal came while an `uninterrupted` function ran, and none was raised since."""
    for ender in _enders:
        number, ender.waiting = ender.waiting, None
        if number is not None:
            raise Terminated(number)


@contextmanager
def ending_signals(numbers: Sequence[int] = ENDING, *, insist: bool = True) -> Iterator[None]:
    """Raise `Terminated` in the block for signals that would end the process.

    Those that are handled otherwise, or ignored, as nohup has it, stay so.

    Parameters
    ----------
    numbers : sequence of int
        The signals.
    insist : bool
        Raise it again where it was lost: Python drops what is raised in a callback of a weak reference, say.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    if not taken or threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    ender = _Ender(insist)
    _enders.append(ender)
    for number in taken:
        signal.signal(number, ender)
    try:
        yield
    finally:
        ender.disarm()
        _enders.remove(ender)
        for number in taken:
            signal.signal(number, before[number])
        if ender.waiting is not None:
            signal.raise_signal(ender.waiting)


class _Ender:
    """The handler: raises `Terminated` where that is heard, and looks again later whether it was.

    Attributes
    ----------
    waiting : int, or None
        The signal that came where it would not have been heard.
    """

    def __init__(self, insist: bool) -> None:
        self._insist, self._armed, self._lock = insist, True, threading.Lock()
        self.waiting: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        cleaning_up = isinstance(sys.exc_info()[1], Terminated)  # after the first one
        if cleaning_up or _is_uninterrupted(frame):
            self.waiting = None if cleaning_up else number
            self._later(number)
            return
        self.waiting = None
        if self._insist:
            self._later(number)
        raise Terminated(number)

    def disarm(self) -> None:
        """Send no signal any more."""
        with self._lock:
            self._armed = False

    def _later(self, number: int) -> None:
        timer = threading.Timer(LATER, self._send, [number])
        timer.daemon = True
        timer.start()

    def _send(self, number: int) -> None:
        with self._lock:
            if self._armed:
                os.kill(os.getpid(), number)


def _is_uninterrupted(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _uninterrupted:
            return True
        frame = frame.f_back
    return False
