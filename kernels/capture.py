"""Work on a GPU that is recorded once, as a CUDA graph, and from then on enqueued by one launch.

Whether a graph was made, of how many nodes, or why not, is a state that everybody can ask for: `Recorded.state`. What
runs launch by launch computes the same, only slower, so nothing else would show it.
"""

import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mpi_fast.kernels.launch import Array, Device, Graph

Work = Callable[[], None]

# A capture must not meet what a first run does: loading a kernel, or a library that chooses an algorithm and keeps it
# by thread; and allocators see one capture of a process at a time. So whoever records warms up on the same thread, and
# nobody else does meanwhile.
ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Capture:
    """Whether work is one CUDA graph.

    Attributes
    ----------
    nodes : int
        Kernels, copies and the like in the graph; 0 without one.
    why_not : str
        Why there is none; empty where there is one.
    """

    nodes: int = 0
    why_not: str = ""

    @property
    def captured(self) -> bool:
        """Whether there is a graph."""
        return self.nodes > 0

    def __str__(self) -> str:
        return f"one CUDA graph of {self.nodes} nodes" if self.captured else f"no CUDA graph: {self.why_not}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"captured": self.captured, "nodes": self.nodes, "why_not": self.why_not}


class Recorded:
    """Work that is enqueued by one launch of a graph; where that is refused, launch by launch, with a warning.

    Parameters
    ----------
    device : Device
        On whose stream it runs.
    work : callable
        Enqueues, allocates nothing, and waits for nothing.
    """

    def __init__(self, device: Device, work: Work) -> None:
        self._device, self._work = device, work
        self._graph: Graph | None = None
        with ONE_AT_A_TIME, device.active():
            work()  # loads kernels, and lets libraries choose theirs
            device.wait()
            try:
                self._graph = device.record(work)
                self.state = Capture(self._graph.nodes)
            except Exception as error:  # of CuPy, and of what libraries enqueue
                refused = str(error).splitlines()[0] if str(error) else type(error).__name__
                warnings.warn(f"no CUDA graph, so every launch is its own: {refused}", RuntimeWarning, stacklevel=3)
                self.state = Capture(why_not=refused)

    def __call__(self) -> None:
        """Enqueue."""
        with self._device.active():
            if self._graph is None:
                self._work()
            else:
                self._graph.launch()


class CapturedFrames:
    """Frames of one number: pinned memory in, kernels, pinned memory out, by one launch.

    Parameters
    ----------
    device : Device
        With a stream that nothing else uses at the same time.
    inputs, outputs : dict of arrays
        Of the device: what ``work`` reads and writes. Their first axis need not be frames.
    work : callable
        Enqueues what is between them.

    Attributes
    ----------
    given, results : dict of arrays
        Pinned memory of the host, for `submit` to read and for `collect` to write.
    """

    def __init__(self, device: Device, inputs: Mapping[str, Array], work: Work, outputs: Mapping[str, Array]) -> None:
        self._device, self._inputs, self._work, self._outputs = device, inputs, work, outputs
        self.given = {name: device.pinned(array.shape, array.dtype) for name, array in inputs.items()}
        self.results = {name: device.pinned(array.shape, array.dtype) for name, array in outputs.items()}
        self._whole = Recorded(device, self._from_host_to_host)
        self._between: Recorded | None = None

    @property
    def state(self) -> Capture:
        """Whether it is one graph."""
        return self._whole.state

    def submit(self) -> None:
        """Enqueue everything, for what is in `given`, which must stay as it is until `collect`."""
        self._whole()

    def collect(self) -> dict[str, NDArray[Any]]:
        """`results` of what was submitted, when it is done."""
        self._device.wait()
        return self.results

    def between(self) -> None:
        """Enqueue the work alone: from and to arrays of the device."""
        if self._between is None:
            self._between = Recorded(self._device, self._work)
        self._between()

    def _from_host_to_host(self) -> None:
        for name, array in self._inputs.items():
            self._device.copy(self.given[name], array)
        self._work()
        for name, array in self._outputs.items():
            self._device.fetch(array, self.results[name])
