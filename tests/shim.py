"""A device without a GPU: the same .cu files, built by g++ with one fiber per CUDA thread (cuda_shim/cuda_shim.h)."""

import contextlib
import ctypes
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import mpi_fast.kernels
from mpi_fast.kernels.launch import Kernel, fits

COMPILER = shutil.which("g++") if sys.platform == "linux" else None
SOURCES = Path(mpi_fast.kernels.__file__).resolve().parent
SHIM = Path(__file__).resolve().parent / "cuda_shim"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-function")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1", "-O1")
GUARD = 64  # elements before and after each array
POISON = 0xFF  # bytes of arrays before the first write: NaN in every floating-point type


class ShimDevice:
    """A `mpi_fast.kernels.launch.Device` with NumPy arrays; launches run at once.

    Parameters
    ----------
    folder : Path
        Folder in which libraries are built.
    sanitized : bool
        Build with the address and undefined-behaviour sanitizers; the process must have them loaded.
    backwards : bool
        Run the threads of a block from the last to the first.
    sources : Path
        Folder of the .cu files.
    """

    name = "g++"
    stream_address = 0
    multiprocessors = 16
    shared_limit = 96 << 10  # as in cuda_shim.h

    def __init__(self, folder, *, sanitized=False, backwards=False, sources=SOURCES):
        self._folder, self._flags = Path(folder), SANITIZERS if sanitized else ("-O2",)
        self._backwards, self._sources = backwards, sources
        self._libraries = {}
        self._guarded = []
        self.enqueued = 0  # copies and launches so far

    def upload(self, array):
        """A copy of exactly its size, so that the address sanitizer detects accesses beyond its ends."""
        return np.array(array, order="C")

    def empty(self, shape, dtype):
        """A poisoned array between guards that `check_guards` checks."""
        dtype, count = np.dtype(dtype), int(np.prod(shape))
        whole = np.full((count + 2 * GUARD) * dtype.itemsize, POISON, dtype=np.uint8)
        self._guarded.append((whole, dtype.itemsize))
        return whole.view(dtype)[GUARD : GUARD + count].reshape(shape)

    def check_guards(self):
        """Assert that nothing was written before or after any array of `empty`, and forget the arrays."""
        for whole, size in self._guarded:
            edges = np.concatenate([whole[: GUARD * size], whole[-GUARD * size :]])
            assert (edges == POISON).all(), "written outside an array"
        self._guarded.clear()

    def address(self, array):
        return array.ctypes.data

    def adopt(self, foreign, name="signals", ordered=False):
        return foreign

    def after(self, stream):
        """Do nothing, because all work is complete."""

    before = after

    def mark(self):
        return SimpleNamespace(done=True, synchronize=lambda: None)

    def pinned(self, shape, dtype):
        return np.zeros(shape, dtype)

    def copy(self, source, target):
        self.enqueued += 1
        target[...] = source

    def fetch(self, source, target):
        self.enqueued += 1
        target[...] = source

    def record(self, work):
        """A substitute for a graph that runs the work again; fake_cuda.py can record graphs."""
        before = self.enqueued
        work()
        return SimpleNamespace(nodes=self.enqueued - before, launch=work)

    def wait(self):
        """Do nothing, because all work is complete."""

    def active(self):
        return contextlib.nullcontext()

    def span(self, name):
        return contextlib.nullcontext()

    def release(self):
        """Do nothing, because no memory is kept."""

    def launch(self, kernel, grid, threads, shared, arguments):
        fits(self, kernel, shared)
        self.enqueued += 1
        self.run(self.library(kernel), kernel, grid, threads, shared, arguments)

    def library(self, kernel):
        """The library of a kernel, built now or before."""
        if kernel not in self._libraries:
            self._libraries[kernel] = self._build(kernel)
        return self._libraries[kernel]

    def run(self, library, kernel, grid, threads, shared, arguments):
        """Run a kernel at once, on arrays of the host and NumPy scalars."""
        values = [
            ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else np.ctypeslib.as_ctypes_type(a.dtype)(a)
            for a in arguments
        ]
        addresses = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        error = library(addresses, *grid, threads, shared, int(self._backwards))
        if error:
            raise RuntimeError(f"{kernel.name}: {error.decode()}")

    def _build(self, kernel: Kernel):
        defines = [f"-D{name}={value}" for name, value in kernel.defines]
        command = [
            COMPILER, "-std=c++17", "-shared", "-fPIC", "-ffp-contract=off", "-fno-strict-aliasing",
            *self._flags, *WARNINGS, f"-I{SHIM}", f"-I{self._sources}", "-include", "cuda_shim.h",
            f'-DSOURCE="{kernel.name}.cu"', f"-DKERNEL={kernel.name}", *defines, str(SHIM / "kernel.cpp"),
        ]  # fmt: skip
        texts = [*sorted(self._sources.glob("*.cu*")), *sorted(SHIM.iterdir())]
        key = hashlib.sha256(repr(command).encode() + b"".join(path.read_bytes() for path in texts)).hexdigest()
        library = self._folder / f"{kernel.name}-{key[:16]}.so"
        if not library.exists():
            subprocess.run([*command, "-o", str(library)], check=True)
        function = ctypes.CDLL(str(library)).launch
        function.restype = ctypes.c_char_p
        function.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 3, ctypes.c_size_t, ctypes.c_int]
        return function
