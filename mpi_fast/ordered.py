"""Chunks that are computed elsewhere, their images in order: what processes and actors have in common."""

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
AHEAD = 2  # chunks for each worker: one that is computed, one that waits
LOSSES = 3  # of workers over one chunk, before the chunk is to blame


@dataclass(eq=False)
class Task:
    """A chunk on its way, what becomes of it, and how many workers were lost over it."""

    rows: Rows
    future: Future[Any] = field(default_factory=Future)
    losses: int = 0

    def lost(self, workers: str, advice: str) -> None:
        """Count one more loss of one of the workers.

        Raises
        ------
        DeviceError
            When it is one too many.
        """
        self.losses += 1
        if self.losses > LOSSES:
            raise DeviceError(f"{LOSSES + 1} {workers} were killed one after the other: {advice}")


class Ordered(ABC):
    """Workers with a pipeline each, in a ``with`` block."""

    count: int  # of workers

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def map(self, chunks: Iterable[Rows]) -> Iterator[Frames]:
        """Images of chunk after chunk of rows, in the order of the chunks.

        A worker that is killed is replaced, and what was being computed is computed again.

        Raises
        ------
        DeviceError
            Workers die over one chunk again and again.
        MPIFastError
            Of a pipeline, or of whatever yields the chunks: then after the results of those before.
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
        """Have it computed."""

    @abstractmethod
    def _first(self, waiting: deque[Task]) -> Frames:
        """Wait for the result of the first of those that were submitted."""
