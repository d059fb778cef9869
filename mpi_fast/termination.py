"""Raise signals that end a process as exceptions, so that all code can clean up."""

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
    """Raised for a signal that ends the process; handlers of Ctrl+C handle it, too.

    Attributes
    ----------
    number : int
        Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def uninterrupted(function: Function) -> Function:
    """Delay `ending_signals` during a function whose caller, a library, would lose the exception."""
    _uninterrupted.add(function.__code__)
    return function


def raise_waiting() -> None:
    """Raise `Terminated` if a signal that arrived during an `uninterrupted` function has not been raised yet."""
    for ender in _enders:
        number, ender.waiting = ender.waiting, None
        if number is not None:
            raise Terminated(number)


def raise_lost(error: BaseException) -> None:
    """Raise the interruption that a library in C turned into this error, if there was one."""
    for ender in _enders:
        if ender.raised is not None:
            raise Terminated(ender.raised)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            raise cause
        cause = cause.__cause__ or cause.__context__


@contextmanager
def ending_signals(numbers: Sequence[int] = ENDING, *, insist: bool = True) -> Iterator[None]:
    """Raise `Terminated` in the block for signals that would end the process.

    Signals with another handler, or ignored ones, as by nohup, are not changed.

    Parameters
    ----------
    numbers : sequence of int
        The signals.
    insist : bool
        Raise it again if it was lost, because Python drops exceptions in callbacks of weak references, for example.
    """
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number, handler in before.items() if handler in (signal.SIG_DFL, signal.default_int_handler)]
    if not taken or threading.current_thread() is not threading.main_thread():  # other threads get no signals
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
    """The handler: raises `Terminated` if possible, and checks later whether it was lost.

    Attributes
    ----------
    waiting : int, or None
        A signal that arrived while the exception would have been lost.
    raised : int, or None
        The last signal for which the exception was raised.
    """

    def __init__(self, insist: bool) -> None:
        self._insist, self._armed, self._lock = insist, True, threading.Lock()
        self.waiting: int | None = None
        self.raised: int | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        cleaning_up = isinstance(sys.exc_info()[1], Terminated)  # after the first one
        if cleaning_up or _is_uninterrupted(frame):
            self.waiting = None if cleaning_up else number
            self._later(number)
            return
        self.waiting = None
        self.raised = number
        if self._insist:
            self._later(number)
        raise Terminated(number)

    def disarm(self) -> None:
        """Stop sending signals."""
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
