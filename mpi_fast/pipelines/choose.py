"""The choice of a pipeline: the requested one, or the best one for the machine and the model."""

import re
import warnings
from importlib.util import find_spec

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import DeviceError, InputError, ModelError, MPIFastError
from mpi_fast.limits import EVALUATIONS
from mpi_fast.pipelines import Pipeline
from mpi_fast.pipelines.fallback import WithFallback
from mpi_fast.pipelines.graph import PosteriorGraph

ENGINES = "auto", "onnx", "tensorrt"
PRECISIONS = "fp16", "tf32", "fp32"  # precisions of TensorRT engines


def choose(
    calibration: Calibration,
    bundle: Bundle,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "fp16",
    threads: int | None = None,
    evaluations: int = EVALUATIONS,
) -> tuple[Pipeline, str]:
    """Choose a pipeline; returns it and the reason for the choice.

    Parameters
    ----------
    calibration, bundle : Calibration, Bundle
        Calibration of the scanner, and the bundle of the network.
    device, engine, precision, threads, evaluations
        See `reconstructor.Reconstructor`.

    Raises
    ------
    InputError
        For an unknown device, engine or precision, and for engines that do not run on the device.
    MPIFastError
        If the requested device or engine cannot run on this machine.
    """
    if engine not in ENGINES:
        raise InputError(f"engine '{engine}': expected one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise InputError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    place = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if not place:
        raise InputError(f"device '{device}': expected auto, cpu, cuda or cuda:N")

    def on_cpu() -> tuple[Pipeline, str]:
        why = "requested" if device == "cpu" else "no GPU found"
        return PosteriorGraph(calibration, bundle, evaluations, threads), why

    replaceable = device == "auto" and engine != "tensorrt"  # the CPU has no engines of TensorRT
    if device == "cpu" and engine == "tensorrt":
        raise InputError("engine 'tensorrt' runs on a GPU: expected auto or onnx on the CPU")
    if device == "cpu":
        return on_cpu()
    reason = _no_gpu() if device == "auto" else None
    if reason is None:
        try:
            gpu, why = _on_gpu(calibration, bundle, evaluations, int(place[1] or 0), engine, precision)
            return (WithFallback(gpu, on_cpu) if replaceable else gpu), why
        except DeviceError as error:
            if not replaceable:
                raise
            reason = str(error)
            warnings.warn(f"reconstructing on the CPU: {reason}", RuntimeWarning, stacklevel=3)
    elif not replaceable:
        raise InputError(f"engine 'tensorrt' runs on a GPU: {reason}")
    pipeline, _ = on_cpu()
    return pipeline, reason


def _on_gpu(
    calibration: Calibration, bundle: Bundle, evaluations: int, index: int, engine: str, precision: str
) -> tuple[Pipeline, str]:
    """A pipeline on a GPU, and the reason: the network's own kernels or, if they cannot run, ONNX Runtime with CUDA."""
    from mpi_fast.kernels.cupy_device import CupyDevice
    from mpi_fast.pipelines.device import PosteriorOnDevice

    if engine == "tensorrt":
        from mpi_fast.pipelines.tensorrt_frozen import TensorRTFrozen

        return TensorRTFrozen(calibration, bundle, CupyDevice(index), precision, evaluations), "requested"
    reasons: list[str] = []
    if engine == "auto":
        try:
            kernels = PosteriorOnDevice(calibration, bundle, lambda: CupyDevice(index), evaluations=evaluations)
            return kernels, "the first choice"
        except (DeviceError, ModelError) as error:
            reasons.append(f"the CUDA kernels cannot run: {error}")
    try:
        return PosteriorGraph(calibration, bundle, evaluations, gpu=index), "; ".join(reasons) or "requested"
    except MPIFastError as error:
        raise DeviceError("; ".join([*reasons, f"ONNX Runtime cannot run on the GPU: {error}"])) from error


def _no_gpu() -> str | None:
    """The reason why no GPU can be used, or None; found without importing CuPy if it is not installed."""
    if find_spec("cupy") is None:
        return "no GPU is used, because CuPy is not installed"
    import cupy

    return None if cupy.cuda.is_available() else "no CUDA device found"
