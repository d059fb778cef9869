"""Sources of frames for the live page: a file, a simulation, a socket."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import LiveError, MPIFastError
from mpi_fast.live.stream import Live
from mpi_fast.mdf import Acquisition


@dataclass(frozen=True, slots=True)
class Incoming:
    """A frame with the arguments of `Live.submit`."""

    signals: NDArray[Any]
    number: int
    timestamp: float
    empty: bool = False
    flags: int = 0


class Source(Protocol):
    """A source of frames of one scanner.

    Attributes
    ----------
    calibration : Calibration
    name : str
        Name to be shown.
    acquisition : Acquisition, or None
        Acquisition parameters, for recordings.
    """

    calibration: Calibration
    name: str

    @property
    def acquisition(self) -> Acquisition | None:
        """Acquisition parameters of the frames."""
        ...

    def frames(self, stopped: threading.Event) -> Iterator[Incoming | MPIFastError]:
        """Yield frames when they are due, until `stopped`, or an error in place of a frame."""
        ...


def feed(source: Source, live: Live, stopped: threading.Event) -> None:
    """Submit the frames of a source until it ends or is stopped; frames that do not fit are counted and skipped.

    Raises
    ------
    MPIFastError
        If the source itself fails.
    """
    for incoming in source.frames(stopped):
        if isinstance(incoming, MPIFastError):
            live.refuse(str(incoming))
            continue
        try:
            live.submit(
                incoming.signals, incoming.number, incoming.timestamp, empty=incoming.empty, flags=incoming.flags
            )
        except LiveError:
            if stopped.is_set():
                return
            raise
        except MPIFastError:  # `Live` has counted it
            continue


class Clock:
    """Timing of frames at a steady rate (1/s); a late frame does not wait, so that delays are caught up."""

    def __init__(self, rate: float, stopped: threading.Event) -> None:
        self._rate, self._stopped = rate, stopped
        self._began = time.monotonic()

    def reached(self, number: int) -> bool:
        """Wait until frame `number` is due; returns False if stopped before."""
        ahead = self._began + number / self._rate - time.monotonic()
        return not (self._stopped.wait(ahead) if ahead > 0.001 else self._stopped.is_set())
