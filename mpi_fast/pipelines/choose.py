"""The choice of a pipeline: the requested one, or the best one for the machine and the model."""

import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import DeviceError, InputError, ModelError, MPIFastError
from mpi_fast.kernels.launch import Event
from mpi_fast.limits import EVALUATIONS
from mpi_fast.pipelines import Array, Frames, Pipeline, Sampling
from mpi_fast.pipelines.graph import PosteriorGraph
from mpi_fast.reconstruction import Reconstruction

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
        if engine == "tensorrt":
            raise InputError("engine 'tensorrt' runs on a GPU: expected auto or onnx on the CPU")
        why = "requested" if device == "cpu" else "no GPU found"
        return PosteriorGraph(calibration, bundle, evaluations, threads), why

    if device == "cpu":
        return on_cpu()
    reason = _no_gpu() if device == "auto" else None
    if reason is None:
        try:
            gpu, why = _on_gpu(calibration, bundle, evaluations, int(place[1] or 0), engine, precision)
            return (gpu if device != "auto" else WithFallback(gpu, on_cpu)), why
        except DeviceError as error:
            if device != "auto":
                raise
            reason = str(error)
            warnings.warn(f"reconstructing on the CPU: {reason}", RuntimeWarning, stacklevel=3)
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


class WithFallback:
    """A pipeline on a GPU that is replaced by one on the CPU when the GPU fails; see `Pipeline`."""

    def __init__(self, gpu: Pipeline, on_cpu: Callable[[], tuple[Pipeline, str]]) -> None:
        self._pipeline, self._on_cpu = gpu, on_cpu

    @property
    def name(self) -> str:
        """The name of the current pipeline."""
        return self._pipeline.name

    @property
    def graphs(self) -> dict[int, Any]:
        """The graphs of the current pipeline."""
        return dict(getattr(self._pipeline, "graphs", {}))

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        frames: Frames = self._try(lambda pipeline: pipeline(rows))
        return frames

    def samples(self, rows: NDArray[np.complex64], sampling: Sampling) -> Array:
        """See `graph.PosteriorGraph.samples`."""
        drawn: Array = self._try(lambda pipeline: pipeline.samples(rows, sampling))
        return drawn

    def close(self) -> None:
        """See `PosteriorOnDevice.close`."""
        close(self._pipeline)

    def _try(self, work: Callable[[Any], Any]) -> Any:
        try:
            return work(self._pipeline)
        except DeviceError as error:
            warnings.warn(f"reconstruction continues on the CPU: {error}", RuntimeWarning, stacklevel=4)
            self._pipeline, _ = self._on_cpu()
            return work(self._pipeline)

    def warmup(self, rows: NDArray[np.complex64]) -> None:
        """See `warmup`."""
        self._try(lambda pipeline: warmup(pipeline, rows))

    def enqueue(self, signals: Any, out: Reconstruction | None = None, stream: Any = None) -> tuple[Frames, Event]:
        """See `PosteriorOnDevice.enqueue`. This does not fall back to the CPU, because images must be on the GPU."""
        return enqueue(self._pipeline, signals, out, stream)


def warmup(pipeline: Pipeline, rows: NDArray[np.complex64]) -> None:
    """Reconstruct rows once, from the host and, if the pipeline supports it, from the GPU."""
    pipeline(rows)
    if hasattr(pipeline, "warmup"):
        pipeline.warmup(rows)


def close(pipeline: Pipeline) -> None:
    """Free the GPU memory of a pipeline, if it has any."""
    if hasattr(pipeline, "close"):
        pipeline.close()


def enqueue(
    pipeline: Pipeline, signals: Any, out: Reconstruction | None = None, stream: Any = None
) -> tuple[Frames, Event]:
    """Reconstruct frames from and to arrays on a GPU, see `PosteriorOnDevice.enqueue`.

    Raises
    ------
    InputError
        For pipelines without this function.
    """
    if not hasattr(pipeline, "enqueue"):
        raise InputError(f"{pipeline.name} does not accept arrays on a GPU: expected NumPy arrays, or device='cuda'")
    enqueued: tuple[Frames, Event] = pipeline.enqueue(signals, out, stream)
    return enqueued


def _no_gpu() -> str | None:
    """The reason why no GPU can be used, or None; found without importing CuPy if it is not installed."""
    if find_spec("cupy") is None:
        return "no GPU is used, because CuPy is not installed"
    import cupy

    return None if cupy.cuda.is_available() else "no CUDA device found"
