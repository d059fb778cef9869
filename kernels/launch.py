"""Interface of a device that runs kernels. `cupy_device` implements it for GPUs, and the tests for CPUs."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mpi_fast.errors import DeviceError, InputError

Array = Any
"""An array of the device, with `shape`, `dtype` and `flags` as in NumPy."""

NOTHING = np.uintp(0)
"""Null pointer, which is passed to a kernel in place of an array that it shall not use."""

DLPACK_CUDA = 2  # kDLCUDA of the DLPack standard
SHARED_LIMIT = 48 * 1024  # bytes of shared memory of a thread block on every GPU; more must be requested


@dataclass(frozen=True)
class Kernel:
    """The kernel ``name`` in the file ``name.cu``, and the macros with which it is compiled."""

    name: str
    defines: tuple[tuple[str, str], ...] = ()


class Graph(Protocol):
    """A recorded CUDA graph."""

    @property
    def nodes(self) -> int:
        """Number of nodes, such as kernels and copies."""
        ...

    def launch(self) -> None:
        """Enqueue the graph on the stream from which it was recorded."""
        ...


class Event(Protocol):
    """A point in the sequence of operations of a stream."""

    @property
    def done(self) -> bool:
        """Whether all operations before it are complete."""
        ...

    def synchronize(self) -> None:
        """Wait until all operations before it are complete."""
        ...


class Device(Protocol):
    """Memory and a stream of a device. Only `wait` waits for the device, and `launch` allocates no memory."""

    @property
    def name(self) -> str:
        """Name of the device for messages."""
        ...

    @property
    def stream_address(self) -> int:
        """Address of the CUDA stream, for other libraries."""
        ...

    @property
    def multiprocessors(self) -> int:
        """Number of multiprocessors."""
        ...

    @property
    def shared_limit(self) -> int:
        """Largest shared memory of a thread block, in bytes."""
        ...

    def upload(self, array: NDArray[Any]) -> Array:
        """Copy an array to the device."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """Allocate an array on the device, with undefined content."""
        ...

    def address(self, array: Array) -> int:
        """Address of an array's first element, for other libraries."""
        ...

    def adopt(self, foreign: Any, name: str = "signals", ordered: bool = False) -> Array:
        """Use an array of another library on the device, without copying it and without waiting.

        Parameters
        ----------
        foreign : array
            Array of CuPy, PyTorch or another library.
        name : str
            Name of the array in error messages.
        ordered : bool
            Whether the caller orders all uses of the array. If not, this stream waits for the current stream of the
            array's library.

        Raises
        ------
        InputError
            For an array on another device, or not on a GPU.
        """
        ...

    def after(self, stream: Any) -> None:
        """Make later work on this device's stream wait for all present work on another stream, of any library."""
        ...

    def before(self, stream: Any) -> None:
        """Make later work on another stream, of any library, wait for all present work on this device's stream."""
        ...

    def mark(self) -> Event:
        """Record an event after all work that is enqueued so far."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Allocate a host array of zeros in pinned memory, which can be copied asynchronously."""
        ...

    def copy(self, source: NDArray[Any], target: Array) -> None:
        """Enqueue a copy from the host to the device; in a graph, the source must be from `pinned`."""
        ...

    def fetch(self, source: Array, target: NDArray[Any]) -> None:
        """Enqueue a copy from the device to a host array from `pinned`."""
        ...

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Enqueue a kernel on the stream.

        Parameters
        ----------
        kernel : Kernel
            The kernel.
        grid : (int, int)
            Number of thread blocks along x and y.
        threads : int
            Threads of each thread block.
        shared : int
            Dynamic shared memory of each thread block, in bytes.
        arguments : sequence
            Arrays of the device and NumPy scalars.
        """
        ...

    def record(self, work: Callable[[], None]) -> Graph:
        """Capture as a graph, without running it, what ``work`` enqueues. It must have run on this thread before."""
        ...

    def wait(self) -> None:
        """Wait until all enqueued work is complete."""
        ...

    def release(self) -> None:
        """Return unused memory of the allocators to the driver."""
        ...

    def span(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """A context whose work appears under this name in a profiler."""
        ...

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """A context in which this is the current device, and operations of arrays are enqueued on its stream."""
        ...


def expect(where: str, shape_of: dict[str, tuple[Array, tuple[int, ...], DTypeLike]]) -> None:
    """Check arrays before their addresses are passed to kernels or copies, which do not check them.

    Parameters
    ----------
    where : str
        Beginning of error messages.
    shape_of : dict
        ``{name: (array, shape, dtype)}``: arrays, with the shapes and types that they must have.

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


def is_on_gpu(array: Any) -> bool:
    """Whether an array, of any library, is in the memory of a CUDA device."""
    if hasattr(array, "__cuda_array_interface__"):
        return True
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) == DLPACK_CUDA


def fits(device: Device, kernel: Kernel, shared: int) -> None:
    """Check the shared memory of a thread block against the limit of the device.

    Raises
    ------
    DeviceError
        If the kernel needs more than the device has.
    """
    if shared > device.shared_limit:
        raise DeviceError(
            f"{kernel.name}: a block needs {shared} bytes of shared memory, {device.name} has {device.shared_limit}: "
            "the grid has too many voxels for this GPU, or the calibration too high a rank"
        )
