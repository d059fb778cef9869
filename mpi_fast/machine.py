"""Hardware and versions, to be shown with measured figures."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import mpi_fast

PACKAGES = (
    "numpy",
    "h5py",
    "onnxruntime",
    "onnxruntime-gpu",
    "matplotlib",
    "torch",
    "onnx",
    "cupy-cuda13x",
    "tensorrt",
    "tensorrt-rtx",
)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, operating system and versions; reads package metadata without importing packages."""
    return {
        "mpi-fast": mpi_fast.__version__,
        "processor": processor(),
        "cores": cores(),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def processor() -> str:
    """Name of the CPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def cores() -> int:
    """Number of cores that this process may use; in a container, fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (AttributeError, ValueError, OSError):
        return "unknown"
