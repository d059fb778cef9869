"""Actors of a Ray cluster that compute what one process would: each makes its pipeline once, results come in order.

A Ray actor is lost with its process or its node. It is not restarted, which could wait for a place for ever: another
one is begun, and its chunks go to whichever actor has room. One that has no place yet is given nothing.
"""

import importlib
import logging
import os
import re
import signal
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType, TracebackType
from typing import Any, Protocol, Self

import numpy as np

from mpi_fast.errors import DeviceError, InputError, MPIFastError
from mpi_fast.machine import cores
from mpi_fast.ordered import AHEAD, Ordered, Rows, Task
from mpi_fast.pipelines import Frames, Pipeline

logger = logging.getLogger(__name__)
TIMEOUT = 10.0  # s, for a cluster to answer at all


class MakeOn(Protocol):
    """Makes a pipeline, and says why this one."""

    def __call__(self, *, device: str) -> tuple[Pipeline, str]:
        """On ``cpu`` or ``cuda``."""
        ...


def import_ray() -> ModuleType:
    """Ray; MPIFastError without it."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise MPIFastError("a cluster needs Ray: pip install 'mpi-fast[cluster]'") from error


class Cluster(Ordered):
    """Actors with a pipeline each: on every GPU of the cluster or, where it has none, on as many cores as there are.

    Parameters
    ----------
    make : callable
        Makes the pipeline on a device; it is pickled, and put into the cluster's memory once.
    address : str
        Of the cluster; ``auto`` joins the one that RAY_ADDRESS names, or that ``ray start`` began here, else starts one
        on this machine for as long as the block lasts. A program that has called ``ray.init`` uses what it has joined.
    threads : int
        Cores of each actor.
    device : str
        ``auto``; ``cpu`` to leave GPUs alone; ``cuda``.

    Raises
    ------
    MPIFastError
        Without Ray.
    InputError
        For a device that has a number, and more threads than any node has cores.
    DeviceError
        For a cluster that cannot be joined, or has no GPU where one is asked for.
    """

    def __init__(self, make: MakeOn, address: str = "auto", threads: int = 1, device: str = "auto") -> None:
        if ":" in device:
            raise InputError(f"device '{device}': a cluster deals out its GPUs itself: expected auto, cpu or cuda")
        self._ray, self._make, self._address = import_ray(), make, address
        self._threads, self._device = threads, device
        self._actors: list[Any] = []
        self._room: deque[Any] = deque()  # actors, once for each chunk that they can take
        self._todo: deque[Task] = deque()
        self._running: dict[Any, tuple[Any, Task]] = {}  # by the reference to the result
        self._beginning = Task(np.empty((0, 0), np.complex64))  # counts actors that were lost before their first chunk

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            if not self._ray.is_initialized():
                stack.enter_context(_joined(self._ray, self._address))
            device, needs = self._planned()
            logger.info("%d actors compute, with %s each", self.count, needs)
            self._actor = self._ray.remote(max_restarts=0, max_task_retries=0, **needs)(_Actor)
            self._given = self._ray.put(self._make), device
            stack.callback(self._end)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _planned(self) -> tuple[str, dict[str, int]]:
        """The device of each actor and what Ray is to reserve for it; sets how many there are."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if self._device != "cpu":
            self.count = sum(int(node.get("GPU", 0)) for node in nodes)
            if self.count:  # not auto, which would fall back to the CPU unseen
                return "cuda", {"num_gpus": 1, "num_cpus": 0}
            if self._device == "cuda":
                raise DeviceError("device 'cuda': the cluster has no GPU")
        self.count = sum(int(node.get("CPU", 0)) // self._threads for node in nodes)
        if not self.count:
            most = max((int(node.get("CPU", 0)) for node in nodes), default=0)
            raise InputError(f"threads {self._threads}: no node of the cluster has more than {most} cores")
        return "cpu", {"num_cpus": self._threads}

    def _submit(self, task: Task) -> None:
        if len(self._actors) < self.count:
            self._begin()
        self._todo.append(task)
        self._deal()

    def _first(self, waiting: deque[Task]) -> Frames:
        first = waiting[0]
        while not first.future.done():
            (ended,), _ = self._ray.wait(list(self._running), num_returns=1)
            self._take(ended)
            self._deal()
        result: Frames = first.future.result()
        return result

    def _begin(self) -> None:
        actor = self._actor.remote(*self._given)
        self._actors.append(actor)
        self._running[actor.__ray_ready__.remote()] = actor, self._beginning

    def _deal(self) -> None:
        while self._todo and self._room:
            actor, task = self._room.popleft(), self._todo.popleft()
            self._running[actor.compute.remote(task.rows)] = actor, task

    def _take(self, ended: Any) -> None:
        """Take a result, or count the loss of its actor and have the chunk computed by another one."""
        actor, task = self._running.pop(ended)
        try:
            found = self._ray.get(ended)
        except self._ray.exceptions.RayTaskError as error:  # of the pipeline, raised in its turn
            task.future.set_exception(error.cause)
        except self._ray.exceptions.RayError as error:
            logger.info("an actor is lost: %s", error)
            self._replace(actor)
            if task is self._beginning:
                last = str(error).strip().splitlines()[-1]
                task.lost("actors of the cluster", f"is mpi-fast installed on its nodes, as it is here? ({last})")
            else:
                self._todo.appendleft(task)
                less = "fewer at a time, with more threads each, need less"
                task.lost("actors of the cluster", f"they may need more memory than there is, of which {less}")
            return
        else:
            if task is self._beginning:
                task.losses = 0
                self._room.extend([actor] * (AHEAD - 1))
            else:  # copied: what Ray hands out is its own memory, and read-only
                task.future.set_result(Frames(*map(np.array, found)))
        if actor in self._actors:
            self._room.append(actor)

    def _replace(self, actor: Any) -> None:
        if actor in self._actors:  # else another of its chunks has told
            self._actors.remove(actor)
            self._room = deque(one for one in self._room if one != actor)
            self._ray.kill(actor)  # what only seems dead must not come back
            self._begin()

    def _end(self) -> None:
        if self._ray.is_initialized():  # else any call would begin a cluster
            for actor in self._actors:
                self._ray.kill(actor)


class _Actor:
    """Runs in the cluster; the pipeline is made with the first rows, so that its errors are those of a chunk."""

    def __init__(self, make: MakeOn, device: str) -> None:
        self._make, self._device = make, device
        self._pipeline: Pipeline | None = None

    def compute(self, rows: Rows) -> Frames:
        if self._pipeline is None:
            self._pipeline, _ = self._make(device=self._device)
        return self._pipeline(rows)


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    """Joined to a cluster, of which nothing is heard: what it says would go to stdout, among the results."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the default to be, without a warning
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    ray._private.worker._worker_logs_enabled = False  # of lost actors it tells all the same
    handled = signal.getsignal(signal.SIGTERM)
    try:
        if address == "auto" and "RAY_ADDRESS" not in os.environ and not _runs_here(ray):
            ray.init("local", num_cpus=cores(), include_dashboard=False, **quiet)
        else:
            if re.fullmatch(r"[^/]+:\d+", address):
                _knock(address)
            ray.init(None if address == "auto" else address, **quiet)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise DeviceError(f"cluster '{address}': cannot be joined: {error}") from error
    finally:
        if threading.current_thread() is threading.main_thread():  # others cannot, and Ray has not
            signal.signal(signal.SIGTERM, handled)  # else it would end the process without cleaning up
    try:
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


def _runs_here(ray: Any) -> bool:
    """Whether ``ray start`` began a cluster here that lives; not one of another program, which would end with it."""
    address = ray._private.utils.read_ray_address()
    try:
        return bool(address) and _knock(address)
    except (OSError, OverflowError, ValueError):
        return False


def _knock(address: str) -> bool:
    """True, or OSError where nothing listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), TIMEOUT).close()
    return True
