"""Compute with actors of a Ray cluster. Each makes its pipeline once, and results have the order of the input.

A Ray actor is lost with its process or its node. It is not restarted, because that might wait for resources for ever. A
new actor is started, and the lost chunks go to any actor with capacity. An actor without resources gets no chunks.
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

from mpi_fast.errors import DeviceError, InputError
from mpi_fast.machine import cores
from mpi_fast.optional import optional
from mpi_fast.ordered import AHEAD, Ordered, Rows, Task
from mpi_fast.pipelines import Frames, Pipeline

logger = logging.getLogger(__name__)
TIMEOUT = 10.0  # s, time limit for the first answer of a cluster


class MakeOn(Protocol):
    """Makes a pipeline, and returns the reason for its choice."""

    def __call__(self, *, device: str) -> tuple[Pipeline, str]:
        """Make the pipeline on ``cpu`` or ``cuda``."""
        ...


def import_ray() -> ModuleType:
    """Import Ray; raises MPIFastError if it is missing."""
    with optional("a cluster needs Ray: pip install 'mpi-fast[cluster]'"):
        return importlib.import_module("ray")


class Cluster(Ordered):
    """Actors with a pipeline each, on every GPU of the cluster or, without GPUs, on all cores.

    Parameters
    ----------
    make : callable
        Makes the pipeline on a device; it is pickled, and sent to the cluster once.
    address : str
        Address of the cluster. ``auto`` joins the one that RAY_ADDRESS names, or that ``ray start`` began here. If
        there is none, it starts a cluster on this machine until the block ends. After ``ray.init`` that cluster is
        used.
    threads : int
        Number of cores of each actor.
    device : str
        ``auto``, ``cpu`` (without GPUs) or ``cuda``.

    Raises
    ------
    MPIFastError
        If Ray is not installed.
    InputError
        For a device with a number, and for more threads than any node has cores.
    DeviceError
        For a cluster that cannot be joined, or that has no GPU although one is required.
    """

    def __init__(self, make: MakeOn, address: str = "auto", threads: int = 1, device: str = "auto") -> None:
        if ":" in device:
            raise InputError(f"device '{device}': a cluster deals out its GPUs itself: expected auto, cpu or cuda")
        self._ray, self._make, self._address = import_ray(), make, address
        self._threads, self._device = threads, device
        self._actors: list[Any] = []
        self._room: deque[Any] = deque()  # free capacity: each actor once for every chunk that it can take
        self._todo: deque[Task] = deque()
        self._running: dict[Any, tuple[Any, Task]] = {}  # keys are references to results
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
        """The device of each actor and its Ray resources; also sets the number of actors."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if self._device != "cpu":
            self.count = sum(int(node.get("GPU", 0)) for node in nodes)
            if self.count:  # not auto, which would silently fall back to the CPU
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
        """Take a result, or count the loss of its actor and give the chunk to another actor."""
        actor, task = self._running.pop(ended)
        try:
            found = self._ray.get(ended)
        except self._ray.exceptions.RayTaskError as error:  # an error of the pipeline, raised in the order of results
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
            else:  # copied, because Ray returns its own read-only memory
                task.future.set_result(Frames(*map(np.array, found)))
        if actor in self._actors:
            self._room.append(actor)

    def _replace(self, actor: Any) -> None:
        if actor in self._actors:  # otherwise another of its chunks has already reported the loss
            self._actors.remove(actor)
            self._room = deque(one for one in self._room if one != actor)
            self._ray.kill(actor)  # an actor that only seemed lost must not return
            self._begin()

    def _end(self) -> None:
        if self._ray.is_initialized():  # otherwise any call would start a cluster
            for actor in self._actors:
                self._ray.kill(actor)


class _Actor:
    """Runs in the cluster; makes its pipeline with the first rows, so that errors belong to a chunk."""

    def __init__(self, make: MakeOn, device: str) -> None:
        self._make, self._device = make, device
        self._pipeline: Pipeline | None = None

    def compute(self, rows: Rows) -> Frames:
        if self._pipeline is None:
            self._pipeline, _ = self._make(device=self._device)
        return self._pipeline(rows)


@contextmanager
def _joined(ray: Any, address: str) -> Iterator[None]:
    """Join a cluster without its log, which would be printed to stdout among the results."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the future default, set to avoid a warning
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    ray._private.worker._worker_logs_enabled = False  # lost actors are reported anyway
    handled = signal.getsignal(signal.SIGTERM)
    try:
        if address == "auto" and "RAY_ADDRESS" not in os.environ and not _runs_here(ray):
            ray.init("local", num_cpus=cores(), include_dashboard=False, **quiet)
        else:
            if re.fullmatch(r"[^/]+:\d+", address):
                _check_reachable(address)
            ray.init(None if address == "auto" else address, **quiet)
    except (OSError, OverflowError, ValueError, RuntimeError) as error:
        raise DeviceError(f"cluster '{address}': cannot be joined: {error}") from error
    finally:
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers, as Ray did
            signal.signal(signal.SIGTERM, handled)  # otherwise it would end the process without cleaning up
    try:
        yield
    finally:
        ray.shutdown()
        ray._private.worker._worker_logs_enabled = True


def _runs_here(ray: Any) -> bool:
    """Whether a cluster begun by ``ray start`` runs here, rather than one that ends with another program."""
    address = ray._private.utils.read_ray_address()
    try:
        return bool(address) and _check_reachable(address)
    except (OSError, OverflowError, ValueError):
        return False


def _check_reachable(address: str) -> bool:
    """Return True, or raise OSError at once if no process listens; Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), TIMEOUT).close()
    return True
