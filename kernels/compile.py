"""Compilation of kernels by NVRTC, which needs no GPU, and a cache of the machine code on disk."""

import hashlib
import io
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mpi_fast.atomic import atomic_path
from mpi_fast.caches import cache_folder
from mpi_fast.errors import MPIFastError
from mpi_fast.kernels.launch import Kernel

FOLDER = Path(__file__).resolve().parent
OPTIONS = {"std": "c++17", "ptxas_options": "-v"}  # -v: the assembler reports registers and memory


@dataclass(frozen=True)
class Cubin:
    """Machine code of one kernel for one architecture, and the resources that it uses.

    Attributes
    ----------
    code : bytes
        ELF image.
    registers : int
        Registers per thread.
    stack, spills : int
        Bytes of local memory per thread: its size, and the bytes that register spills store and load.
    """

    code: bytes
    registers: int
    stack: int
    spills: int


def compile_kernel(kernel: Kernel, architecture: str) -> Cubin:
    """Compile a kernel for an architecture, such as ``sm_90``.

    Raises
    ------
    MPIFastError
        If cuda-core or NVRTC is not installed, or compilation fails; the message then contains that of the compiler.
    """
    try:
        from cuda.core import Program, ProgramOptions
    except ImportError as error:
        raise MPIFastError("compiling kernels needs cuda-core and NVRTC: pip install 'mpi-fast[gpu]'") from error
    options = ProgramOptions(
        arch=architecture, include_path=str(FOLDER), define_macro=list(kernel.defines) or None, **OPTIONS
    )
    log = io.StringIO()
    try:
        code = Program(_source(kernel), "c++", options).compile("cubin", logs=log).code
    except Exception as error:  # NVRTC's own class is not public
        raise MPIFastError(f"{kernel.name}.cu for {architecture}: {error}") from error
    stack, stores, loads = _figures(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", log)
    (registers,) = _figures(r"Used (\d+) registers", log)
    return Cubin(bytes(code), registers, stack, stores + loads)


def cached(kernel: Kernel, architecture: str) -> Path:
    """The file with a compiled kernel, compiled now unless the cache has it for the same source and compiler.

    See `caches.cache_folder` for the folder of the cache.
    """
    identity = (kernel, architecture, OPTIONS, compiler_version(), _source(kernel), _header())
    folder = cache_folder("kernels")
    path = folder / f"{kernel.name}-{architecture}-{hashlib.sha256(repr(identity).encode()).hexdigest()[:24]}.cubin"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_bytes(compile_kernel(kernel, architecture).code)
    return path


@cache
def compiler_version() -> tuple[int, int]:
    """Version of NVRTC, major and minor.

    Raises
    ------
    MPIFastError
        If NVRTC is not installed.
    """
    try:
        from cuda.bindings import nvrtc

        _, major, minor = nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:  # the package or the library is missing
        raise MPIFastError("compiling kernels needs cuda-core and NVRTC: pip install 'mpi-fast[gpu]'") from error
    return major, minor


def _source(kernel: Kernel) -> str:
    return (FOLDER / f"{kernel.name}.cu").read_text(encoding="utf-8")


def _header() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.cuh")))


def _figures(pattern: str, log: io.StringIO) -> list[int]:
    """Numbers in the assembler's report."""
    found = re.search(pattern, log.getvalue())
    if found is None:
        raise MPIFastError(f"unknown format of the assembler's report: no '{pattern}' in {log.getvalue()!r}")
    return [int(number) for number in found.groups()]
