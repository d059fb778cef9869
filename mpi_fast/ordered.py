"""Compute chunks elsewhere and return images in order; the common part of processes and actors."""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import DeviceError
from mpi_fast.pipelines import Frames, Pipeline

Rows = NDArray[np.complex64]
Make = Callable[[], tuple[Pipeline, str]]
AHEAD = 2  # chunks for each worker: one in progress, and one waiting
LOSSES = 3  # number of workers lost with one chunk, before the chunk is blamed


@dataclass(eq=False)
class Task:
    """A chunk in progress, its result, and the number of workers lost with it."""

    rows: Rows
    future: Future[Any] = field(default_factory=Future)
    losses: int = 0

    def lost(self, workers: str, advice: str) -> None:
        """Count the loss of a worker.

        Raises
        ------
        DeviceError
            If too many workers were lost.
        """
        self.losses += 1
        if self.losses > LOSSES:
            raise DeviceError(f"{LOSSES + 1} {workers} were killed one after the other: {advice}")


class Ordered(ABC):
    """Workers with a pipeline each, in a ``with`` block."""

    count: int  # number of workers

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def map(self, chunks: Iterable[Rows]) -> Iterator[Frames]:
        """Yield the images of chunks of rows, in the order of the chunks.

        A killed worker is replaced, and its chunks are computed again.

        Raises
        ------
        DeviceError
            If several workers are lost with one chunk.
        MPIFastError
            From a pipeline or from the source of chunks, after the results of earlier chunks.
        """
        waiting: deque[Task] = deque()
        source: Iterator[Rows] | None = iter(chunks)
        failure: Exception | None = None
        while True:
            while source is not None and len(waiting) < AHEAD * self.count:
                try:
                    waiting.append(Task(next(source)))
                except StopIteration:
                    source = None
                except Exception as error:
                    source, failure = None, error
                else:
                    self._submit(waiting[-1])
            if not waiting:
                break
            frames = self._first(waiting)
            waiting.popleft()
            yield frames
        if failure is not None:
            raise failure

    @abstractmethod
    def _submit(self, task: Task) -> None:
        """Submit a task to a worker."""

    @abstractmethod
    def _first(self, waiting: deque[Task]) -> Frames:
        """Wait for the result of the first submitted task."""
