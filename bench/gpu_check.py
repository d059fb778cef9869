"""What a GPU run needs, and whether it is here: the exit status is 0 if all is, 3 without a GPU, 1 otherwise."""

import importlib
import sys

from onnx_graph import why_not

MODULES = (
    "torch", "cupy", "cuda.core", "onnx", "onnxruntime", "h5py", "threadpoolctl", "typer", "rich", "scipy",
    "pytest", "pytest_benchmark", "hypothesis", "ml_dtypes",
    "mpi_fast.engines.torch_device", "mpi_fast.pipelines.device",
)  # fmt: skip


def main() -> int:
    missing = []
    for name in MODULES:
        try:
            module = importlib.import_module(name)
            print(f"{name} {getattr(module, '__version__', '')}")
        except ImportError as error:
            missing.append(name)
            print(f"{name}: missing ({error})")
    if reason := why_not():
        print(f"to be skipped: ONNX Runtime's own CUDA graph: {reason}")
    try:
        import cupy

        there = cupy.cuda.is_available()
    except ImportError:
        there = False
    if not there:
        print("no CUDA device found")
        return 3
    if not missing:
        print(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
