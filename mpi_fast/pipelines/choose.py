"""Which pipeline reconstructs: what the caller asked for, or the best that this machine and this model have."""

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
PRECISIONS = "fp16", "tf32", "fp32"  # of TensorRT's engines


def choose(
    calibration: Calibration,
    bundle: Bundle,
    device: str = "auto",
    engine: str = "auto",
    precision: str = "fp16",
    threads: int | None = None,
    evaluations: int = EVALUATIONS,
) -> tuple[Pipeline, str]:
    """A pipeline, and why this one.

    Parameters
    ----------
    calibration, bundle
        What to reconstruct with.
    device, engine, precision, threads, evaluations
        See `reconstructor.Reconstructor`.

    Raises
    ------
    InputError
        For a device or engine that there is not, and engines that do not run on the device.
    MPIFastError
        When what was asked for cannot run here.
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
        why = "as asked for" if device == "cpu" else "where there is no GPU"
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
    """The network's own kernels; where they are not to be had, ONNX Runtime with CUDA, and why."""
    from mpi_fast.kernels.cupy_device import CupyDevice
    from mpi_fast.pipelines.device import PosteriorOnDevice

    if engine == "tensorrt":
        from mpi_fast.pipelines.tensorrt_frozen import TensorRTFrozen

        return TensorRTFrozen(calibration, bundle, CupyDevice(index), precision, evaluations), "as asked for"
    reasons: list[str] = []
    if engine == "auto":
        try:
            kernels = PosteriorOnDevice(calibration, bundle, lambda: CupyDevice(index), evaluations=evaluations)
            return kernels, "the first choice"
        except (DeviceError, ModelError) as error:
            reasons.append(f"not its own kernels: {error}")
    try:
        return PosteriorGraph(calibration, bundle, evaluations, gpu=index), "; ".join(reasons) or "as asked for"
    except MPIFastError as error:
        raise DeviceError("; ".join([*reasons, f"not onnx: {error}"])) from error


class WithFallback:
    """A pipeline on a GPU until that fails, then one on the CPU; see `Pipeline`."""

    def __init__(self, gpu: Pipeline, on_cpu: Callable[[], tuple[Pipeline, str]]) -> None:
        self._pipeline, self._on_cpu = gpu, on_cpu

    @property
    def name(self) -> str:
        """The name of the pipeline that runs at present."""
        return self._pipeline.name

    @property
    def graphs(self) -> dict[int, Any]:
        """The graphs of the pipeline that runs at present."""
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
            warnings.warn(f"from here on the CPU reconstructs: {error}", RuntimeWarning, stacklevel=4)
            self._pipeline, _ = self._on_cpu()
            return work(self._pipeline)

    def warmup(self, rows: NDArray[np.complex64]) -> None:
        """See `warmup`."""
        self._try(lambda pipeline: warmup(pipeline, rows))

    def enqueue(self, signals: Any, out: Reconstruction | None = None, stream: Any = None) -> tuple[Frames, Event]:
        """See `PosteriorOnDevice.enqueue`; nothing falls back, since the caller wants the images on the GPU."""
        return enqueue(self._pipeline, signals, out, stream)


def warmup(pipeline: Pipeline, rows: NDArray[np.complex64]) -> None:
    """Reconstruct rows, from the host and where that can be from the GPU, to have done so once."""
    pipeline(rows)
    if hasattr(pipeline, "warmup"):
        pipeline.warmup(rows)


def close(pipeline: Pipeline) -> None:
    """Give back what a pipeline holds of a GPU, if it does."""
    if hasattr(pipeline, "close"):
        pipeline.close()


def enqueue(
    pipeline: Pipeline, signals: Any, out: Reconstruction | None = None, stream: Any = None
) -> tuple[Frames, Event]:
    """Frames from and to arrays of a GPU; InputError for pipelines that do not run on one."""
    if not hasattr(pipeline, "enqueue"):
        raise InputError(
            f"arrays that are on a GPU are not for {pipeline.name}: expected device='cuda', or NumPy arrays"
        )
    enqueued: tuple[Frames, Event] = pipeline.enqueue(signals, out, stream)
    return enqueued


def _no_gpu() -> str | None:
    """Why there is no point in trying a GPU, found out without importing anything large; None if there may be."""
    if find_spec("cupy") is None:
        return "no GPU used: CuPy is not installed"
    import cupy

    return None if cupy.cuda.is_available() else "no CUDA device found"
