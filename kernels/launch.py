"""What runs kernels: a device, behind the few calls that the launchers need. CuPy provides one, the tests another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mpi_fast.errors import InputError, MPIFastError

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
    """Memory and a stream. Nothing here waits for the device, and `launch` allocates nothing."""

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

    def copy(self, source: NDArray[Any], target: Array) -> None:
        """Overwrite an array of the device with one of the host."""
        ...

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Enqueue a kernel on the stream: arrays of the device and NumPy scalars are its arguments."""
        ...


class CupyDevice:
    """The current CUDA device by CuPy, and one of its streams.

    Parameters
    ----------
    stream : cupy.cuda.Stream, optional
        Where kernels are enqueued; default: a new one that does not wait for the default stream.

    Raises
    ------
    MPIFastError
        Without CuPy, without a GPU, and where the driver is too old.
    """

    def __init__(self, stream: Any = None) -> None:
        try:
            import cupy
        except ImportError as error:
            raise MPIFastError("running on a GPU needs CuPy: pip install 'mpi-fast[gpu]'") from error
        if not cupy.cuda.is_available():
            raise MPIFastError("CuPy finds no CUDA device: expected an NVIDIA GPU and its driver")
        self._cupy = cupy
        self._device = cupy.cuda.Device()
        self._functions: dict[Kernel, Any] = {}
        self.stream = cupy.cuda.Stream(non_blocking=True) if stream is None else stream
        self.architecture = f"sm_{self._device.compute_capability}"
        self.multiprocessors = int(self._device.attributes["MultiProcessorCount"])

    def upload(self, array: NDArray[Any]) -> Array:
        """See `Device`."""
        with self.stream:
            return self._cupy.asarray(array)

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """See `Device`."""
        with self.stream:
            return self._cupy.empty(shape, dtype)

    def copy(self, source: NDArray[Any], target: Array) -> None:
        """See `Device`."""
        target.set(source, stream=self.stream)

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """See `Device`; the first launch of a kernel loads it, and compiles it unless it is in the cache."""
        if kernel not in self._functions:
            from mpi_fast.kernels.compile import cached

            path = cached(kernel, self.architecture)
            self._functions[kernel] = self._cupy.RawModule(path=str(path)).get_function(kernel.name)
        with self.stream:
            self._functions[kernel](grid, (threads,), tuple(arguments), shared_mem=shared)


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
