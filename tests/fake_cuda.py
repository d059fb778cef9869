"""A substitute for CUDA and CuPy that uses host memory, on the machine of fake_machine.py and with its rules.

* Memory, streams and launches belong to a device, which must be the current one of the thread.
* While a stream is capturing, synchronous copies and pageable memory are refused.

`install` replaces the modules ``cupy`` and ``cupyx``. Kernels are built by g++ (`shim`).
"""

import ctypes
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
from fake_machine import CUDARuntimeError, Event, Gpu, RaceError, Stream
from shim import ShimDevice

from mpi_fast.kernels import cupy_device

__all__ = ["Array", "CUDARuntimeError", "RaceError", "Stream", "install"]
TO_DEVICE, TO_HOST = 1, 2


class Device:
    """See ``cupy.cuda.Device``."""

    def __init__(self, gpu, capability, index=None):
        self.gpu, self.id = gpu, gpu.device if index is None else index
        self.compute_capability = capability
        self.attributes = {"MultiProcessorCount": 16, "MaxSharedMemoryPerBlockOptin": 96 << 10}
        self.outer = []

    def __enter__(self):
        self.outer.append(self.gpu.device)
        self.gpu.local.device = self.id
        return self

    def __exit__(self, *error):
        self.gpu.local.device = self.outer.pop()


class Array(np.ndarray):
    """CuPy's array; its own operations are enqueued on the current stream of the current device."""

    gpu = None

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self):
        return SimpleNamespace(id=self.gpu.memory(self.ctypes.data).device)

    @property
    def __cuda_array_interface__(self):
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.ctypes.data, False), "version": 3}

    def __dlpack_device__(self):
        return 2, self.device.id

    def _enqueue(self, run, reads, writes=()):
        gpu = self.gpu
        for array in (*reads, *writes):
            if array.device.id != gpu.device:
                raise ValueError(f"Array device must be same as the current device: {array.device.id}, {gpu.device}")
        gpu.stream.enqueue(run, *([array.ctypes.data for array in arrays] for arrays in (reads, writes)), "elementwise")

    def _now(self, reads, writes=()):
        """Run an operation that makes a new array. Refused in a capture, after which its memory would be used again."""
        self.gpu.stream.refuse_in_capture("an allocation")
        self._enqueue(lambda: None, reads, writes)
        self.gpu.stream.drain()

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        self._now([one for one in inputs if isinstance(one, Array)])
        plain = [one.view(np.ndarray) if isinstance(one, Array) else one for one in inputs]
        return fresh(self.gpu, getattr(ufunc, method)(*plain, **options))

    def __array_function__(self, function, types, arguments, options):
        self._now([one for one in arguments if isinstance(one, Array)])
        plain = [one.view(np.ndarray) if isinstance(one, Array) else one for one in arguments]
        return fresh(self.gpu, function(*plain, **options))

    def __setitem__(self, key, value):
        plain = value.view(np.ndarray) if isinstance(value, Array) else value
        reads = [value] if isinstance(value, Array) else []
        self._enqueue(lambda: self.view(np.ndarray).__setitem__(key, plain), reads, [self])

    def __getitem__(self, key):
        whole = self.view(np.ndarray)
        found = whole[key]
        if isinstance(found, np.ndarray) and found.base is not None and np.may_share_memory(found, whole):
            return found.view(Array)
        self._now([self])
        return fresh(self.gpu, found)

    def astype(self, dtype, **options):
        if self.dtype == dtype and not options.get("copy", True):
            return self
        self._now([self])
        return fresh(self.gpu, self.view(np.ndarray).astype(dtype, **options))

    def set(self, host, stream=None):
        (stream or self.gpu.stream).refuse_in_capture("H2D transfers are disallowed")
        self._now((), [self])
        self.view(np.ndarray)[...] = host

    def get(self, stream=None, out=None, blocking=True):
        (stream or self.gpu.stream).refuse_in_capture("D2H transfers are disallowed")
        self._now([self])
        found = np.array(self.view(np.ndarray))
        if out is None:
            return found
        out[...] = found
        return out


def fresh(gpu, values):
    """A new array of the device, written by the current stream."""
    array = gpu.allocate(np.shape(values), np.asarray(values).dtype, gpu.device).view(Array)
    array.set(np.asarray(values))
    return array


class Kernel:
    """A loaded kernel; parameters that are const in its source are read, the others written."""

    def __init__(self, gpu, shim, kernel):
        self.gpu, self.shim, self.kernel, self.device = gpu, shim, kernel, gpu.device
        self.max_dynamic_shared_size_bytes = 48 << 10
        source = re.sub(r"//[^\n]*", "", (shim._sources / f"{kernel.name}.cu").read_text())
        listed = re.search(rf"\b{kernel.name}\s*\((.*?)\)\s*\{{", source, re.DOTALL)[1]
        self.constant = ["const" in one for one in listed.split(",")]

    def __call__(self, grid, block, arguments, *, shared_mem=0):
        gpu, stream = self.gpu, self.gpu.stream
        if not self.device == gpu.device == stream.device:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle: the kernel or the stream is another device's")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDARuntimeError("cudaErrorInvalidValue: invalid argument")
        pairs = list(zip(arguments, self.constant, strict=True))
        reads, writes = (
            [one.ctypes.data for one, constant in pairs if isinstance(one, Array) and constant is wanted]
            for wanted in (True, False)
        )
        given = [one.view(np.ndarray) if isinstance(one, Array) else one for one in arguments]
        library = self.shim.library(self.kernel)
        stream.enqueue(
            lambda: self.shim.run(library, self.kernel, grid, *block, shared_mem, given),
            reads,
            writes,
            self.kernel.name,
        )


def install(monkeypatch, folder, devices=1, capability="90"):
    """Replace CuPy, with kernels built in ``folder``; returns the machine."""
    gpu = Gpu(devices)
    shim = ShimDevice(folder)
    monkeypatch.setattr(Array, "gpu", gpu)
    known = {}

    def cached(kernel, architecture):
        path = Path(folder) / f"{kernel.name}-{len(known)}"
        known[str(path)] = kernel
        return path

    def copy(target, source, count, kind, pointer):
        stream = gpu.of(pointer)
        host, device = (source, target) if kind == TO_DEVICE else (target, source)
        pinned = gpu.memory(host)
        if stream.capturing is not None and (pinned is None or pinned.device is not None):
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: a copy of pageable memory")
        if gpu.memory(device) is None or gpu.memory(device).device is None:
            raise CUDARuntimeError("cudaErrorInvalidValue: no memory of a device")
        view = memory_at(source, count).copy if pinned is None and kind == TO_DEVICE else None
        content = view() if view else None

        def run():
            memory_at(target, count)[:] = memory_at(source, count) if content is None else content

        stream.enqueue(run, [source], [target], "copy")

    def begin(pointer, mode):
        assert all(one.capturing is None for one in gpu.streams.values()), "two captures at a time"
        gpu.of(pointer).capturing = []

    def end(pointer):
        stream = gpu.of(pointer)
        handle = len(gpu.graphs) + 1
        gpu.graphs[handle], stream.capturing = stream.capturing, None
        gpu.captured.append([what for *_, what in gpu.graphs[handle]])
        return handle

    def launch(handle, pointer):
        if gpu.of(pointer).device != gpu.device:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle: the stream is another device's")
        for node in gpu.graphs[handle]:
            gpu.of(pointer).enqueue(*node)

    def of(pointer):
        return gpu.of(pointer or gpu.default[gpu.device].pointer)

    def asarray(array):
        if isinstance(array, Array):
            return array
        if hasattr(array, "__cuda_array_interface__"):
            told = array.__cuda_array_interface__
            if told.get("stream") is not None:  # CuPy waits for it
                gpu.of(told["stream"]).synchronize()
            dtype = np.dtype(told["typestr"])
            whole = memory_at(told["data"][0], int(np.prod(told["shape"])) * dtype.itemsize)
            return whole.view(dtype).reshape(told["shape"]).view(Array)
        return fresh(gpu, np.asarray(array))

    runtime = SimpleNamespace(
        getDeviceCount=lambda: gpu.count,
        getDeviceProperties=lambda index: {"name": b"a GPU of host memory"},
        getDevice=lambda: gpu.device,
        pointerGetAttributes=lambda address: SimpleNamespace(device=gpu.memory(address).device),
        memcpyAsync=copy,
        eventRecord=lambda event, pointer: of(pointer).record(Event.known[event]),
        streamWaitEvent=lambda pointer, event: of(pointer).wait_event(Event.known[event]),
        memcpyHostToDevice=TO_DEVICE,
        memcpyDeviceToHost=TO_HOST,
        streamBeginCapture=begin,
        streamEndCapture=end,
        streamCaptureModeRelaxed=2,
        graphInstantiate=lambda handle: handle,
        graphLaunch=launch,
        graphDestroy=lambda handle: None,
        graphExecDestroy=lambda handle: None,
    )
    new_stream = type("Stream", (), {"null": gpu.default[0], "__new__": lambda cls, non_blocking: Stream(gpu)})
    spans = gpu.spans
    nvtx = SimpleNamespace(RangePush=spans.append, RangePop=lambda: spans.append(None))
    pool = SimpleNamespace(free_all_blocks=lambda: gpu.released.append(gpu.device))
    cuda = SimpleNamespace(
        nvtx=nvtx,
        is_available=lambda: True,
        Device=lambda index=None: Device(gpu, capability, index),
        Stream=new_stream,
        Event=Event,
        get_current_stream=lambda: gpu.stream,
        runtime=runtime,
    )
    cupy = ModuleType("cupy")
    cupy.__spec__ = ModuleSpec("cupy", None)  # read by the test whether CuPy is installed
    cupy.cuda, cupy.ndarray, cupy.asarray = cuda, Array, asarray
    cupy.empty = lambda shape, dtype: gpu.allocate(shape, dtype, gpu.device).view(Array)
    cupy.from_dlpack = lambda foreign: foreign.__dlpack__(stream=gpu.stream.pointer)
    cupy.RawModule = lambda path: SimpleNamespace(get_function=lambda name: Kernel(gpu, shim, known[path]))
    cupy.get_default_memory_pool = cupy.get_default_pinned_memory_pool = lambda: pool
    cupyx = ModuleType("cupyx")
    cupyx.empty_pinned = lambda shape, dtype: gpu.allocate(shape, dtype, None)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.setitem(sys.modules, "cupyx", cupyx)
    monkeypatch.setattr("mpi_fast.kernels.compile.cached", cached)
    monkeypatch.setattr(cupy_device, "count_nodes", lambda handle: len(gpu.graphs[handle]))
    gpu.cupy = cupy
    return gpu


def memory_at(address, count):
    """Bytes at an address."""
    return np.frombuffer((ctypes.c_char * count).from_address(address), np.uint8)
