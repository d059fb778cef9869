"""What runs kernels: a device, behind the few calls that the launchers need. CuPy provides one, the tests another."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mpi_fast.errors import DeviceError, InputError

Array = Any
"""An array of the device: `shape`, `dtype` and `flags` as in NumPy."""

NOTHING = np.uintp(0)
"""What a kernel is given instead of an array that it is not to read, or not to write."""

DLPACK_CUDA = 2  # kDLCUDA of the DLPack standard
SHARED_LIMIT = 48 * 1024  # bytes of shared memory that a block gets on every GPU; more must be asked for


@dataclass(frozen=True)
class Kernel:
    """A kernel, ``name`` in the file ``name.cu``, and the macros that it is compiled with."""

    name: str
    defines: tuple[tuple[str, str], ...] = ()


class Graph(Protocol):
    """A recorded CUDA graph."""

    @property
    def nodes(self) -> int:
        """Kernels, copies and the like in it."""
        ...

    def launch(self) -> None:
        """Enqueue all of it on the stream that it was recorded from."""
        ...


class Event(Protocol):
    """A point of a stream."""

    @property
    def done(self) -> bool:
        """Whether everything before it is done."""
        ...

    def synchronize(self) -> None:
        """Return when it is."""
        ...


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

    @property
    def shared_limit(self) -> int:
        """Bytes of shared memory that a block may ask for."""
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

    def adopt(self, foreign: Any, name: str = "signals", ordered: bool = False) -> Array:
        """An array of another library, its memory shared, without waiting.

        Unless all that uses it is ``ordered`` already, what this library calls its current stream is waited for by this
        stream. InputError, with its name, for an array of another device, and of none.
        """
        ...

    def after(self, stream: Any) -> None:
        """What is enqueued here from now on begins after what is on that stream, of any library, by now."""
        ...

    def before(self, stream: Any) -> None:
        """What is enqueued on that stream from now on begins after what is enqueued here by now."""
        ...

    def mark(self) -> Event:
        """The end of what is enqueued by now."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of the host, zeros, that can be copied while both sides do something else."""
        ...

    def copy(self, source: NDArray[Any], target: Array) -> None:
        """Enqueue: overwrite an array of the device with one of the host; in a graph, one of `pinned`."""
        ...

    def fetch(self, source: Array, target: NDArray[Any]) -> None:
        """Enqueue: overwrite an array of the host, of `pinned`, with one of the device."""
        ...

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Enqueue a kernel on the stream: arrays of the device and NumPy scalars are its arguments."""
        ...

    def record(self, work: Callable[[], None]) -> Graph:
        """What ``work`` enqueues, having run before on this thread, as a graph; nothing of it runs."""
        ...

    def wait(self) -> None:
        """Return when everything enqueued is done."""
        ...

    def release(self) -> None:
        """Give memory that no array holds any more back to the driver."""
        ...

    def span(self, name: str) -> contextlib.AbstractContextManager[Any]:
        """What is enqueued within it has this name in a profiler."""
        ...

    def active(self) -> contextlib.AbstractContextManager[Any]:
        """Within it this device is the current one, and what arrays do by themselves is enqueued on its stream."""
        ...


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


def is_on_gpu(array: Any) -> bool:
    """Whether an array of any library is in the memory of a CUDA device."""
    if hasattr(array, "__cuda_array_interface__"):
        return True
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) == DLPACK_CUDA


def fits(device: Device, kernel: Kernel, shared: int) -> None:
    """Check that a block gets so much shared memory; DeviceError where it does not."""
    if shared > device.shared_limit:
        raise DeviceError(
            f"{kernel.name}: a block needs {shared} bytes of shared memory, {device.name} has {device.shared_limit}: "
            "the grid has too many voxels, or the calibration too high a rank, for this GPU"
        )
