"""Compute with several processes. Each loads bundle and calibration once, and results have the order of the input."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, Self

from mpi_fast.ordered import Make, Ordered, Rows, Task
from mpi_fast.pipelines import Frames, Pipeline


class Workers(Ordered):
    """Processes with a pipeline each.

    Parameters
    ----------
    make : callable
        Makes the pipeline; it is pickled.
    count : int
        Number of processes.
    """

    def __init__(self, make: Make, count: int) -> None:
        self._make, self.count = make, count
        self._pool = self._started()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=error is None, cancel_futures=True)

    def _first(self, waiting: deque[Task]) -> Frames:
        first = waiting[0]
        while True:
            try:
                result: Frames = first.future.result()
            except BrokenProcessPool:
                less = f"they may need more memory than there is, of which fewer than {self.count} at a time need less"
                first.lost("worker processes", less)
                self._pool.shutdown(wait=True)
                self._pool = self._started()
                for task in waiting:
                    if not _is_done(task.future):
                        self._submit(task)
            else:
                return result

    def _submit(self, task: Task) -> None:
        try:
            task.future = self._pool.submit(_compute, task.rows)
        except BrokenProcessPool as error:  # handled when its result is requested
            task.future = Future()
            task.future.set_exception(error)

    def _started(self) -> ProcessPoolExecutor:
        # Spawned, because threads of networks and of BLAS do not survive a fork.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.count, context, _begin, (self._make,))


def _is_done(future: Future[Any]) -> bool:
    return future.done() and not future.cancelled() and future.exception() is None


_make: Make | None = None
_pipeline: Pipeline | None = None


def _begin(make: Make) -> None:
    """Start a worker: leave Ctrl+C to the parent, and end when the parent ends for any reason."""
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
    """Reconstruct in a worker; the pipeline is made with the first rows, so that its errors belong to a task."""
    global _pipeline
    if _pipeline is None:
        assert _make is not None
        _pipeline, _ = _make()
    return _pipeline(rows)
