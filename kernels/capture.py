"""Work on a GPU that is captured once as a CUDA graph, and then enqueued by a single launch.

`Recorded.state` tells whether a graph was captured, the number of its nodes, or why the capture failed. Without a graph
the work is enqueued kernel by kernel. The results are the same but take longer, so only this state shows the
difference.
"""

import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from mpi_fast.kernels.launch import Array, Device, Graph

Work = Callable[[], None]

# The first run of some work loads kernels, and libraries choose algorithms, which they store for each thread. This must
# not happen during a capture, so the work is run once before it, on the same thread. Memory allocators support only one
# capture at a time in a process, hence the lock.
ONE_AT_A_TIME = threading.RLock()


@dataclass(frozen=True)
class Capture:
    """Whether some work was captured as a CUDA graph.

    Attributes
    ----------
    nodes : int
        Number of nodes of the graph, such as kernels and copies; 0 if there is no graph.
    why_not : str
        Reason why there is no graph; empty if there is one.
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
        """The state as values for JSON."""
        return {"captured": self.captured, "nodes": self.nodes, "why_not": self.why_not}


class Recorded:
    """Work that is enqueued by one launch of a CUDA graph, or kernel by kernel, with a warning, if the capture fails.

    Parameters
    ----------
    device : Device
        Device on whose stream the work runs.
    work : callable
        Function that enqueues the work. It must not allocate memory, nor wait for the device.

    Attributes
    ----------
    state : Capture
        Whether there is a graph.
    """

    def __init__(self, device: Device, work: Work) -> None:
        self._device, self._work = device, work
        self._graph: Graph | None = None
        with ONE_AT_A_TIME, device.active():
            work()  # loads kernels, and lets libraries choose algorithms
            device.wait()
            try:
                self._graph = device.record(work)
                self.state = Capture(self._graph.nodes)
            except Exception as error:  # errors of CuPy, and of libraries that the work calls
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                message = f"no CUDA graph, so kernels are launched one by one: {reason}"
                warnings.warn(message, RuntimeWarning, stacklevel=3)
                self.state = Capture(why_not=reason)

    def __call__(self) -> None:
        """Enqueue the work."""
        with self._device.active():
            if self._graph is None:
                self._work()
            else:
                self._graph.launch()


class CapturedFrames:
    """Work on a fixed number of frames, with copies from and to pinned memory of the host, enqueued by one launch.

    Parameters
    ----------
    device : Device
        Device whose stream is not used by anything else at the same time.
    inputs, outputs : dict of arrays
        Device arrays that ``work`` reads and writes. Their first axis need not be frames.
    work : callable
        Function that enqueues the computation of the outputs from the inputs.

    Attributes
    ----------
    given, results : dict of arrays
        Pinned memory of the host: inputs that `submit` reads, and outputs that are complete after `collect`.
    """

    def __init__(self, device: Device, inputs: Mapping[str, Array], work: Work, outputs: Mapping[str, Array]) -> None:
        self._device, self._inputs, self._work, self._outputs = device, inputs, work, outputs
        self.given = {name: device.pinned(array.shape, array.dtype) for name, array in inputs.items()}
        self.results = {name: device.pinned(array.shape, array.dtype) for name, array in outputs.items()}
        self._whole = Recorded(device, self._from_host_to_host)
        self._between: Recorded | None = None

    @property
    def state(self) -> Capture:
        """Whether copies and work were captured as one CUDA graph."""
        return self._whole.state

    def submit(self) -> None:
        """Enqueue copies and work for the values of `given`, which must not change until `collect`."""
        self._whole()

    def collect(self) -> dict[str, NDArray[Any]]:
        """Wait for the submitted work, and return `results`."""
        self._device.wait()
        return self.results

    def between(self) -> None:
        """Enqueue only the work, from and to device arrays, without copies."""
        if self._between is None:
            self._between = Recorded(self._device, self._work)
        self._between()

    def _from_host_to_host(self) -> None:
        for name, array in self._inputs.items():
            self._device.copy(self.given[name], array)
        self._work()
        for name, array in self._outputs.items():
            self._device.fetch(array, self.results[name])
