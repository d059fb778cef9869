"""A CUDA device by CuPy.

Four points need care:

* While a stream captures, ``ndarray.set`` and ``get`` raise errors, so copies call the CUDA runtime directly.
* A non-blocking stream does not wait for other streams, so arrays of a caller are adopted with an event.
* CuPy blocks until the stream that an array's interface names is done, so arrays are adopted without this name.
* Memory, streams and launches belong to the current device, so each call makes its own device the current one.
"""

import contextlib
import operator
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from numpy.typing import DTypeLike, NDArray

from mpi_fast.errors import DeviceError, InputError
from mpi_fast.kernels.launch import SHARED_LIMIT, Array, Event, Kernel, expect, fits, is_on_gpu


class CupyDevice:
    """A CUDA device by CuPy, with its own non-blocking stream.

    Parameters
    ----------
    index : int
        Number of the device.

    Raises
    ------
    DeviceError
        If CuPy is not installed, there is no such GPU, or the driver is too old.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            import cupy
        except ImportError as error:
            raise DeviceError("running on a GPU needs CuPy: pip install 'mpi-fast[gpu]'") from error
        if not cupy.cuda.is_available():
            raise DeviceError("CuPy finds no CUDA device: expected an NVIDIA GPU and its driver")
        count = cupy.cuda.runtime.getDeviceCount()
        if not 0 <= index < count:
            raise DeviceError(f"cuda:{index}: there are {count} CUDA devices, counted from 0")
        self._cupy = cupy
        self._device = cupy.cuda.Device(index)
        self._functions: dict[Kernel, Any] = {}
        with self._device:
            self.stream = cupy.cuda.Stream(non_blocking=True)
        self.stream_address = int(self.stream.ptr)
        properties = cupy.cuda.runtime.getDeviceProperties(index)
        self.name = f"{properties['name'].decode()} (cuda:{index})"
        self.architecture = f"sm_{self._device.compute_capability}"
        self.multiprocessors = int(self._device.attributes["MultiProcessorCount"])
        self.shared_limit = int(self._device.attributes["MaxSharedMemoryPerBlockOptin"])

    def upload(self, array: NDArray[Any]) -> Array:
        """See `Device`."""
        with self.active():
            return self._cupy.asarray(array)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """See `Device`."""
        with self.active():
            return self._cupy.empty(shape, dtype)

    def address(self, array: Array) -> int:
        """See `Device`."""
        return int(array.data.ptr)

    def adopt(self, foreign: Any, name: str = "signals", ordered: bool = False) -> Array:
        """See `Device`.

        For arrays with DLPack, their library makes this stream wait. For CuPy's arrays this is done by an event on
        CuPy's current stream, and for libraries with only the older ``__cuda_array_interface__`` by an event on the
        stream that it names, or on the default stream if it names none.
        """
        cupy = self._cupy
        if not is_on_gpu(foreign):
            raise InputError(
                f"{name}: {type(foreign).__name__} is not on a GPU: expected arrays of CuPy, PyTorch or others"
            )
        place = self._place_of(foreign)
        if place != self._device.id:
            raise InputError(
                f"{name} are on cuda:{place}, but {self.name} reconstructs: expected them on cuda:{self._device.id}"
            )
        with self._device:
            if isinstance(foreign, cupy.ndarray):
                if not ordered:
                    self.after(cupy.cuda.get_current_stream())
                return foreign
            if hasattr(foreign, "__dlpack__"):
                with self.stream:
                    return cupy.from_dlpack(foreign)
            interface = foreign.__cuda_array_interface__
            if not ordered:
                self.after(interface.get("stream") or 0)
            unnamed = SimpleNamespace(__cuda_array_interface__={**interface, "stream": None}, owner=foreign)
            return cupy.asarray(unnamed)

    def _place_of(self, foreign: Any) -> int:
        """Number of the device that holds an array."""
        if hasattr(foreign, "__dlpack_device__"):
            return int(foreign.__dlpack_device__()[1])
        address = foreign.__cuda_array_interface__["data"][0]
        return int(self._cupy.cuda.runtime.pointerGetAttributes(address).device)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Device`."""
        import cupyx

        with self._device:
            array: NDArray[Any] = cupyx.empty_pinned(shape, dtype)
        array.fill(0)
        return array

    def copy(self, source: NDArray[Any], target: Array) -> None:
        """See `Device`."""
        expect("copy", {"source": (source, tuple(target.shape), target.dtype), "target": _itself(target)})
        runtime = self._cupy.cuda.runtime
        self._move(self.address(target), source.ctypes.data, source.nbytes, runtime.memcpyHostToDevice)

    def fetch(self, source: Array, target: NDArray[Any]) -> None:
        """See `Device`."""
        expect("fetch", {"source": _itself(source), "target": (target, tuple(source.shape), source.dtype)})
        runtime = self._cupy.cuda.runtime
        self._move(target.ctypes.data, self.address(source), target.nbytes, runtime.memcpyDeviceToHost)

    def _move(self, target: int, source: int, count: int, kind: int) -> None:
        with self._device:
            self._cupy.cuda.runtime.memcpyAsync(target, source, count, kind, self.stream_address)

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """See `Device`; the first launch of a kernel loads it, and compiles it unless it is in the cache."""
        fits(self, kernel, shared)
        with self._device, self.stream:
            if kernel not in self._functions:
                from mpi_fast.kernels.compile import cached

                path = cached(kernel, self.architecture)
                self._functions[kernel] = self._cupy.RawModule(path=str(path)).get_function(kernel.name)
            function = self._functions[kernel]
            if shared > max(SHARED_LIMIT, function.max_dynamic_shared_size_bytes):
                function.max_dynamic_shared_size_bytes = shared
            function(grid, (threads,), tuple(arguments), shared_mem=shared)

    def record(self, work: Callable[[], None]) -> "CudaGraph":
        """See `Device`."""
        runtime = self._cupy.cuda.runtime
        with self._device, self.stream:
            # Relaxed mode: other threads may make any CUDA calls meanwhile.
            runtime.streamBeginCapture(self.stream_address, runtime.streamCaptureModeRelaxed)
            try:
                work()
            except BaseException:
                with contextlib.suppress(Exception):  # an invalid capture has no graph; its cause is raised below
                    runtime.graphDestroy(runtime.streamEndCapture(self.stream_address))
                raise
            return CudaGraph(runtime, runtime.streamEndCapture(self.stream_address), self)

    def after(self, stream: Any) -> None:
        """See `Device`."""
        self._order(_address_of(stream), self.stream_address)

    def before(self, stream: Any) -> None:
        """See `Device`."""
        self._order(self.stream_address, _address_of(stream))

    def _order(self, first: int, then: int) -> None:
        with self._device:
            event = self._cupy.cuda.Event(disable_timing=True)
            self._cupy.cuda.runtime.eventRecord(event.ptr, first)
            self._cupy.cuda.runtime.streamWaitEvent(then, event.ptr)

    def mark(self) -> Event:
        """See `Device`."""
        with self._device:
            event: Event = self._cupy.cuda.Event(disable_timing=True)
            self.stream.record(event)
            return event

    def wait(self) -> None:
        """See `Device`."""
        with self._device:
            self.stream.synchronize()

    def release(self) -> None:
        """See `Device`."""
        with self._device:
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()

    @contextlib.contextmanager
    def span(self, name: str) -> Iterator[None]:
        """See `Device`. The span is an NVTX range, which Nsight Systems shows."""
        self._cupy.cuda.nvtx.RangePush(f"mpi-fast: {name}")
        try:
            yield
        finally:
            self._cupy.cuda.nvtx.RangePop()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """See `Device`."""
        with self._device, self.stream:
            yield


class CudaGraph:
    """See `launch.Graph`. Instantiates a captured graph, and frees it when deleted."""

    def __init__(self, runtime: Any, handle: int, device: CupyDevice) -> None:
        self._runtime, self._device, self._executable = runtime, device, 0
        try:
            self.nodes = count_nodes(handle)
            self._executable = runtime.graphInstantiate(handle)
        finally:
            runtime.graphDestroy(handle)

    def launch(self) -> None:
        """See `launch.Graph`."""
        with self._device.active():
            self._runtime.graphLaunch(self._executable, self._device.stream_address)

    def __del__(self) -> None:
        if self._executable:
            self._runtime.graphExecDestroy(self._executable)


def count_nodes(handle: int) -> int:
    """Number of nodes of a ``cudaGraph_t``.

    Raises
    ------
    DeviceError
        If cuda-bindings is not installed, or the CUDA runtime returns an error.
    """
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise DeviceError("counting a graph's nodes needs cuda-bindings: pip install 'mpi-fast[gpu]'") from error
    status, _, nodes = runtime.cudaGraphGetNodes(runtime.cudaGraph_t(handle), 0)
    if int(status):
        raise DeviceError(f"cudaGraphGetNodes: {status.name}")
    return int(nodes)


def _itself(array: Array) -> tuple[Array, tuple[int, ...], Any]:
    """Arguments of `expect` for an array of any shape and type, which must be contiguous."""
    return array, tuple(array.shape), array.dtype


def _address_of(stream: Any) -> int:
    """Address of a stream of CuPy or PyTorch, or the address itself."""
    try:
        return operator.index(getattr(stream, "ptr", getattr(stream, "cuda_stream", stream)))
    except TypeError:
        expected = "expected a CUDA stream of CuPy or PyTorch, or its address"
        raise InputError(f"stream {stream!r}: {expected}") from None
