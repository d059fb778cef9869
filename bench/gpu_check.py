"""Check the requirements of a GPU run. The exit status is 0 if they are met, 3 without a GPU, 1 if parts are missing.

Missing parts are named together with the one command that installs them into this Python.
"""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping

# Modules that are imported in the run, and the packages that contain them.
EVERYWHERE = {
    "torch": "torch", "onnx": "onnx", "onnxruntime": "onnxruntime", "h5py": "h5py", "threadpoolctl": "threadpoolctl",
    "typer": "typer", "rich": "rich", "scipy": "scipy", "numpy": "numpy", "pytest": "pytest",
    "pytest_benchmark": "pytest-benchmark", "hypothesis": "hypothesis", "onnxscript": "onnxscript",
    "cuda.core": "cuda-core", "cuda.bindings": "cuda-bindings",
}  # fmt: skip
ON_A_GPU = {"cupy": "cupy-cuda13x[ctk]"}
OWN = ("mpi_fast.pipelines.device",)


def missing(modules: Mapping[str, str], find: Callable[[str], object] = importlib.import_module) -> list[str]:
    """The modules that cannot be imported; prints the versions of the others."""
    absent = []
    for name in modules:
        try:
            print(f"{name} {getattr(find(name), '__version__', '')}")
        except Exception as error:  # also if a library is installed but cannot be loaded
            absent.append(name)
            print(f"{name}: missing ({error})")
    return absent


def gpu() -> str | None:
    """Name of the first GPU that the driver lists, or None."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    ran = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    return ran.stdout.splitlines()[0] if ran.returncode == 0 and ran.stdout.strip() else None


def command(modules: Mapping[str, str], absent: list[str]) -> str:
    """The command that installs the missing modules."""
    packages = " ".join(f"'{package}'" if "[" in package else package for package in (modules[name] for name in absent))
    return f"{sys.executable} -m pip install {packages}"


def main() -> int:
    card = gpu()
    modules = EVERYWHERE if card is None else EVERYWHERE | ON_A_GPU
    absent = missing(modules)
    if absent:
        print(f"missing: {', '.join(absent)}. Install them:\n    {command(modules, absent)}")
        return 1
    if card is None:
        print("no NVIDIA GPU found (nvidia-smi)")
        return 3
    broken = missing(dict.fromkeys(OWN, ""))
    from onnx_graph import why_not

    if reason := why_not():
        print(f"ONNX Runtime's own CUDA graph will be skipped: {reason}")
    import cupy

    if not cupy.cuda.is_available():
        print(f"CuPy {cupy.__version__} does not find the {card}: its CUDA may be newer than the driver")
        return 1
    print(card)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
