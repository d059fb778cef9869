"""What runs kernels: a device, behind the few calls that the launchers need. CuPy provides one, the tests another."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mpi_fast.errors import DeviceError, InputError

Array = Any
"""An array of the device: `shape`, `dtype` and `flags` as in NumPy."""

Scalar = Literal["float32", "float16", "bfloat16"]
"""Type of the network's tensors."""

STORAGE: dict[str, type[np.generic]] = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
"""How arrays hold them: bfloat16 as its bits."""

_CUDA_TYPES = {"float32": "float", "float16": "Half", "bfloat16": "BFloat16"}
SHARED_LIMIT = 48 * 1024  # bytes of shared memory that a block gets on every GPU without asking for more
THREADS = 768  # of a block; device.cuh says why


@dataclass(frozen=True)
class Kernel:
    """A kernel, ``name`` in the file ``name.cu``, and the macros that it is compiled with."""

    name: str
    defines: tuple[tuple[str, str], ...] = ()


class Device(Protocol):
    """Memory and a stream. Nothing here waits for the device but `wait`, and `launch` allocates nothing."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def stream_address(self) -> int:
        """The CUDA stream, as other libraries take it."""
        ...

    @property
    def multiprocessors(self) -> int:
        """How many blocks can run without sharing one."""
        ...

    def upload(self, array: NDArray[Any]) -> Array:
        """Copy to the device."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of the device, its content undefined."""
        ...

    def address(self, array: Array) -> int:
        """Of an array's first element, as other libraries take it."""
        ...

    def asarray(self, foreign: Any) -> Array:
        """An array of another library that is on this device already, its memory shared."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of the host, zeros, that can be copied while both sides do something else."""
        ...

    def copy(self, source: NDArray[Any], target: Array) -> None:
        """Enqueue: overwrite an array of the device with one of the host."""
        ...

    def fetch(self, source: Array, target: NDArray[Any]) -> None:
        """Enqueue: overwrite an array of the host, of `pinned`, with one of the device."""
        ...

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Enqueue a kernel on the stream: arrays of the device and NumPy scalars are its arguments."""
        ...

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` enqueues, having run before; the result enqueues the same again."""
        ...

    def wait(self) -> None:
        """Return when everything enqueued is done."""
        ...

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Within it, what arrays do by themselves is enqueued on the stream, too."""
        ...


class CupyDevice:
    """A CUDA device by CuPy, and a stream of its own that does not wait for the default one.

    Parameters
    ----------
    index : int
        Which device.

    Raises
    ------
    DeviceError
        Without CuPy, without this GPU, and where the driver is too old.
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

    def asarray(self, foreign: Any) -> Array:
        """See `Device`."""
        if hasattr(foreign, "__cuda_array_interface__"):
            return self._cupy.asarray(foreign)
        return self._cupy.from_dlpack(foreign)

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """See `Device`."""
        import cupyx

        array: NDArray[Any] = cupyx.empty_pinned(shape, dtype)
        array.fill(0)
        return array

    def copy(self, source: NDArray[Any], target: Array) -> None:
        """See `Device`."""
        with self._device:
            target.set(source, stream=self.stream)

    def fetch(self, source: Array, target: NDArray[Any]) -> None:
        """See `Device`."""
        with self._device:
            source.get(stream=self.stream, out=target, blocking=False)

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """See `Device`; the first launch of a kernel loads it, and compiles it unless it is in the cache."""
        with self._device, self.stream:
            if kernel not in self._functions:
                from mpi_fast.kernels.compile import cached

                path = cached(kernel, self.architecture)
                self._functions[kernel] = self._cupy.RawModule(path=str(path)).get_function(kernel.name)
            self._functions[kernel](grid, (threads,), tuple(arguments), shared_mem=shared)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """See `Device`: a CUDA graph, launched on this stream."""
        with self._device, self.stream:
            self.stream.begin_capture()
            try:
                work()
            finally:
                graph = self.stream.end_capture()

        def launch() -> None:
            with self._device:
                graph.launch(self.stream)

        return launch

    def wait(self) -> None:
        """See `Device`."""
        with self._device:
            self.stream.synchronize()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """See `Device`."""
        with self._device, self.stream:
            yield


def scalar_define(scalar: str) -> tuple[tuple[str, str], ...]:
    """The macro that sets the type of the network's tensors; InputError for an unknown type."""
    if scalar not in _CUDA_TYPES:
        raise InputError(f"network tensors of type '{scalar}': expected one of {', '.join(_CUDA_TYPES)}")
    return (("SCALAR", _CUDA_TYPES[scalar]),)


def expect(where: str, shape_of: dict[str, tuple[Array, tuple[int, ...], DTypeLike]]) -> None:
    """Check arrays, ``{name: (array, shape, dtype)}``, before their addresses go where nothing is checked.

    Raises
    ------
    InputError
        For another shape or type, and for arrays that are not contiguous.
    """
    for name, (array, shape, dtype) in shape_of.items():
        if tuple(array.shape) != shape or array.dtype != dtype or not array.flags.c_contiguous:
            layout = "" if array.flags.c_contiguous else ", not contiguous"
            raise InputError(
                f"{where}: {name} is {array.dtype} {tuple(array.shape)}{layout}, "
                f"expected {np.dtype(dtype)} {shape}, C-contiguous"
            )


def product_floats(columns: int, sums: int) -> int:
    """Shared memory that ``product`` of device.cuh needs for its partial sums, in floats."""
    return max(THREADS // columns - 1, 0) * columns * sums


def strides(voxels: int, channels: int, channels_last: bool) -> tuple[np.int32, np.int32]:
    """Steps from channel to channel and from voxel to voxel of one image."""
    return (np.int32(1), np.int32(channels)) if channels_last else (np.int32(voxels), np.int32(1))
