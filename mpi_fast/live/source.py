"""Where the frames of the live page come from: a file, a simulation, a socket."""

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
    """A frame, as `Live.submit` takes it."""

    signals: NDArray[Any]
    number: int
    timestamp: float
    empty: bool = False
    flags: int = 0


class Source(Protocol):
    """Frames of one scanner, as they come.

    Attributes
    ----------
    calibration : Calibration
    name : str
        For people.
    acquisition : Acquisition, or None
        How the frames are acquired, for recordings.
    """

    calibration: Calibration
    name: str

    @property
    def acquisition(self) -> Acquisition | None:
        """How the frames are acquired."""
        ...

    def frames(self, stopped: threading.Event) -> Iterator[Incoming | MPIFastError]:
        """Yield frames when they are due, until `stopped`; what is wrong with one instead of it."""
        ...


def feed(source: Source, live: Live, stopped: threading.Event) -> None:
    """Submit the frames of a source until it ends or is stopped; one that does not fit is counted, and costs no other.

    Raises
    ------
    MPIFastError
        The source itself fails.
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
    """Frames at a steady rate (1/s): who is late does not wait, and catches up."""

    def __init__(self, rate: float, stopped: threading.Event) -> None:
        self._rate, self._stopped = rate, stopped
        self._began = time.monotonic()

    def reached(self, number: int) -> bool:
        """Wait until frame `number` is due; False if stopped before."""
        ahead = self._began + number / self._rate - time.monotonic()
        return not (self._stopped.wait(ahead) if ahead > 0.001 else self._stopped.is_set())
