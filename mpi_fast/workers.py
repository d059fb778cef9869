"""Several processes that compute what one would: each loads bundle and calibration once, results come in order."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
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


class Workers:
    """Processes with a pipeline each.

    Parameters
    ----------
    make : callable
        Makes the pipeline; it is pickled.
    count : int
        Of processes.
    """

    def __init__(self, make: Make, count: int) -> None:
        self._make, self._count = make, count
        self._pool = self._started()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=error is None, cancel_futures=True)

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
        waiting: deque[_Task] = deque()
        source: Iterator[Rows] | None = iter(chunks)
        failure: Exception | None = None
        while True:
            while source is not None and len(waiting) < AHEAD * self._count:
                try:
                    waiting.append(_Task(next(source)))
                except StopIteration:
                    source = None
                except Exception as error:
                    source, failure = None, error
                else:
                    self._submit(waiting[-1])
            if not waiting:
                break
            yield self._first(waiting)
        if failure is not None:
            raise failure

    def _first(self, waiting: "deque[_Task]") -> Frames:
        """The result of the first task, which leaves the queue."""
        while True:
            first = waiting[0]
            try:
                if first.future is None:
                    raise BrokenProcessPool
                result: Frames = first.future.result()
            except BrokenProcessPool:
                first.losses += 1
                if first.losses > LOSSES:
                    raise DeviceError(
                        f"{LOSSES + 1} worker processes were killed one after the other: they may need more memory "
                        f"than there is, of which fewer than {self._count} at a time need less"
                    ) from None
                self._pool.shutdown(wait=True)
                self._pool = self._started()
                for task in waiting:
                    if task.future is None or not _is_done(task.future):
                        self._submit(task)
            else:
                waiting.popleft()
                return result

    def _submit(self, task: "_Task") -> None:
        try:
            task.future = self._pool.submit(_compute, task.rows)
        except BrokenProcessPool:  # found out when its result is wanted
            task.future = None

    def _started(self) -> ProcessPoolExecutor:
        # Spawned: threads of networks and of BLAS do not survive a fork.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self._count, context, _begin, (self._make,))


@dataclass
class _Task:
    rows: Rows
    future: Future[Any] | None = None
    losses: int = 0


def _is_done(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


_make: Make | None = None
_pipeline: Pipeline | None = None


def _begin(make: Make) -> None:
    """Start a worker: let the parent handle Ctrl+C, and end with it, however it ends."""
    global _make
    _make = make
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _compute(rows: Rows) -> Frames:
    """Reconstruct in a worker; the pipeline is made with the first rows, so that its errors are those of a task."""
    global _pipeline
    if _pipeline is None:
        assert _make is not None
        _pipeline, _ = _make()
    return _pipeline(rows)
