"""Which pipeline reconstructs: what the caller asked for, or the best that this machine and this model have."""

import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines import Engine
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.errors import DeviceError, InputError, ModelError, MPIFastError
from mpi_fast.limits import EVALUATIONS
from mpi_fast.pipelines import Array, Frames, Pipeline, Sampling
from mpi_fast.pipelines.graph import WholeFrame
from mpi_fast.pipelines.posterior import PosteriorGraph
from mpi_fast.pipelines.steps import StepLoop

if TYPE_CHECKING:
    from mpi_fast.pipelines.device import DeviceEngine

ON_GPU = ("tensorrt", "torch", "onnx")  # in the order in which they are tried
ENGINES = ("auto", *ON_GPU, "tensorrt-frame", "torch-compiled")
PRECISIONS = ("fp16", "bf16", "tf32", "fp32")
DLPACK_CUDA = 2  # kDLCUDA of the DLPack standard


def choose(
    calibration: Calibration,
    bundle: Bundle,
    sampling: Sampling,
    device: str = "auto",
    engine: str | Engine = "auto",
    precision: str = "fp16",
    threads: int | None = None,
    evaluations: int = EVALUATIONS,
) -> tuple[Pipeline, str]:
    """A pipeline, and why this one.

    Parameters
    ----------
    calibration, bundle, sampling
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
    if isinstance(engine, str) and engine not in ENGINES:
        raise InputError(f"engine '{engine}': expected one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise InputError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
    place = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", device)
    if not place:
        raise InputError(f"device '{device}': expected auto, cpu, cuda or cuda:N")
    if device.startswith("cuda") and not isinstance(engine, str):
        raise InputError(f"device '{device}': an engine object runs on the host, expected cpu or auto")

    posterior = bundle.method == "posterior"
    if posterior:
        _expect_posterior(bundle, sampling, engine)

    def on_cpu() -> tuple[Pipeline, str]:
        if posterior:
            if engine == "tensorrt":
                raise InputError("engine 'tensorrt' runs on a GPU: expected auto or onnx on the CPU")
            return PosteriorGraph(calibration, bundle, evaluations, threads), f"{bundle.path.name} serves every grid"
        return _on_cpu(calibration, bundle, sampling, engine, threads)

    if device == "cpu" or not isinstance(engine, str):
        return on_cpu()
    reason = _no_gpu() if device == "auto" else None
    if reason is None:
        try:
            index = int(place[1] or 0)
            if posterior:
                gpu, why = _posterior_on_gpu(calibration, bundle, evaluations, index, engine, precision)
            else:
                gpu, why = _on_gpu(calibration, bundle, sampling, index, engine, precision)
            return (gpu if device != "auto" else WithFallback(gpu, on_cpu)), why
        except DeviceError as error:
            if device != "auto":
                raise
            reason = str(error)
            warnings.warn(f"reconstructing on the CPU: {reason}", RuntimeWarning, stacklevel=3)
    pipeline, why = on_cpu()
    return pipeline, f"{why}; {reason}"


def _expect_posterior(bundle: Bundle, sampling: Sampling, engine: str | Engine) -> None:
    """InputError for what a posterior network has no use for."""
    if sampling != Sampling(seed=sampling.seed):
        raise InputError(f"{bundle.path}: a posterior network makes the image without samples: expected no sampling")
    if engine not in ("auto", "onnx", "tensorrt"):
        raise InputError(f"engine {engine!r}: {bundle.path} has no such engine, expected auto, onnx or tensorrt")


def _posterior_on_gpu(
    calibration: Calibration, bundle: Bundle, evaluations: int, index: int, engine: str, precision: str
) -> tuple[Pipeline, str]:
    """The network's own kernels; where they are not to be had, ONNX Runtime with CUDA, and why."""
    from mpi_fast.kernels.cupy_device import CupyDevice
    from mpi_fast.pipelines.posterior_device import PosteriorOnDevice

    if engine == "tensorrt":
        from mpi_fast.pipelines.tensorrt_frozen import TensorRTFrozen

        return TensorRTFrozen(calibration, bundle, CupyDevice(index), precision, evaluations), "as asked for"
    reasons: list[str] = []
    if engine == "auto":
        try:
            kernels = PosteriorOnDevice(calibration, bundle, lambda: CupyDevice(index), evaluations=evaluations)
            return kernels, "the first choice"
        except (DeviceError, ModelError, InputError) as error:  # InputError: of a volume
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
        """Of what runs at present."""
        return self._pipeline.name

    @property
    def graphs(self) -> dict[int, Any]:
        """Of what runs at present."""
        return dict(getattr(self._pipeline, "graphs", {}))

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        frames: Frames = self._try(lambda pipeline: pipeline(rows))
        return frames

    def samples(self, rows: NDArray[np.complex64], sampling: Sampling) -> Array:
        """See `posterior.PosteriorGraph.samples`."""
        drawn: Array = self._try(lambda pipeline: pipeline.samples(rows, sampling))
        return drawn

    def close(self) -> None:
        """See `Lanes.close`."""
        close(self._pipeline)

    def _try(self, work: Callable[[Any], Any]) -> Any:
        try:
            return work(self._pipeline)
        except DeviceError as error:
            warnings.warn(f"from here on the CPU reconstructs: {error}", RuntimeWarning, stacklevel=4)
            self._pipeline, _ = self._on_cpu()
            return work(self._pipeline)

    def on_device(self, signals: Any) -> Frames:
        """See `DeviceLoop.on_device`; nothing falls back, since the caller wants the images on the GPU."""
        return on_device(self._pipeline, signals)


def close(pipeline: Pipeline) -> None:
    """Give back what a pipeline holds of a GPU, if it does."""
    if hasattr(pipeline, "close"):
        pipeline.close()


def on_device(pipeline: Pipeline, signals: Any) -> Frames:
    """Frames from and to arrays of a GPU; InputError for pipelines that do not run on one."""
    if not hasattr(pipeline, "on_device"):
        raise InputError(f"the signals are on a GPU, but {pipeline.name} reconstructs: expected NumPy arrays")
    frames: Frames = pipeline.on_device(signals)
    return frames


def is_on_gpu(array: Any) -> bool:
    """Whether an array of any library is in the memory of a CUDA device."""
    if hasattr(array, "__cuda_array_interface__"):
        return True
    return hasattr(array, "__dlpack_device__") and int(array.__dlpack_device__()[0]) == DLPACK_CUDA


def _no_gpu() -> str | None:
    """Why there is no point in trying a GPU, found out without importing anything large; None if there may be."""
    if find_spec("cupy") is None:
        return "no GPU used: CuPy is not installed"
    import cupy

    return None if cupy.cuda.is_available() else "no CUDA device found"


def _on_gpu(
    calibration: Calibration, bundle: Bundle, sampling: Sampling, index: int, engine: str, precision: str
) -> tuple[Pipeline, str]:
    """The engine that was asked for, or the best of those that are there, and what is the matter with better ones."""
    from mpi_fast.kernels.cupy_device import CupyDevice

    CupyDevice(index)  # says what is missing
    reasons: list[str] = []
    for name in ON_GPU if engine == "auto" else (engine,):
        try:
            if name == "onnx":
                pipeline = _onnx_on_gpu(calibration, bundle, sampling, index)
            elif name == "tensorrt-frame":
                pipeline = _tensorrt_frame(calibration, bundle, sampling, index)
            else:
                pipeline = _device_loop(calibration, bundle, sampling, index, name, precision)
            return pipeline, "; ".join(reasons) or ("the first choice" if engine == "auto" else "as asked for")
        except MPIFastError as error:  # a package, an engine or a precision that is not there
            if isinstance(error, InputError) and engine != "auto":
                raise
            reasons.append(f"not {name}: {error}")
    raise DeviceError("; ".join(reasons))


def _device_loop(
    calibration: Calibration, bundle: Bundle, sampling: Sampling, index: int, engine: str, precision: str
) -> Pipeline:
    from mpi_fast.kernels.cupy_device import CupyDevice
    from mpi_fast.pipelines.device import DeviceLoop

    def network() -> "DeviceEngine":
        if engine == "tensorrt":
            from mpi_fast.engines.tensorrt_device import TensorRTDeviceEngine

            return TensorRTDeviceEngine(bundle, precision)
        try:
            from mpi_fast.engines.torch_device import TorchDeviceEngine
            from mpi_fast.training.checkpoint import load_checkpoint
        except ImportError as error:
            raise DeviceError(f"PyTorch is not installed ({error})") from error
        checkpoint, compiled = load_checkpoint(bundle.checkpoint()), engine == "torch-compiled"
        return TorchDeviceEngine(checkpoint, f"cuda:{index}", precision, compiled)

    return DeviceLoop(calibration, sampling, bundle.sigma_range, network, lambda: CupyDevice(index))


def _tensorrt_frame(calibration: Calibration, bundle: Bundle, sampling: Sampling, index: int) -> Pipeline:
    from mpi_fast.kernels.cupy_device import CupyDevice
    from mpi_fast.pipelines.tensorrt_frame import TensorRTFrame

    name = _graph(bundle, sampling)
    if not name:
        raise InputError(f"engine 'tensorrt-frame': {bundle.path} has no whole-frame graph for this sampling")
    return TensorRTFrame(calibration, sampling, bundle, name, CupyDevice(index))


def _onnx_on_gpu(calibration: Calibration, bundle: Bundle, sampling: Sampling, index: int) -> Pipeline:
    name = _graph(bundle, sampling)
    if name:
        return WholeFrame(calibration, sampling, bundle, name, gpu=index)
    return StepLoop(calibration, sampling, bundle.sigma_range, OnnxEngine(bundle, gpu=index))


def _graph(bundle: Bundle, sampling: Sampling) -> str | None:
    """File of the whole-frame graph for a sampling, if there is one."""
    if not sampling.is_default_method:
        return None
    return bundle.frame_graph(sampling.steps, sampling.samples, sampling.consensus)


def _on_cpu(
    calibration: Calibration, bundle: Bundle, sampling: Sampling, engine: str | Engine, threads: int | None
) -> tuple[Pipeline, str]:
    if engine in ("tensorrt", "tensorrt-frame", "torch-compiled"):
        raise InputError(f"engine '{engine}' runs on a GPU: expected auto, onnx or torch on the CPU")
    if engine == "torch":
        return StepLoop(calibration, sampling, bundle.sigma_range, _eager_torch(bundle)), "as asked for"
    if not isinstance(engine, str):
        return StepLoop(calibration, sampling, bundle.sigma_range, engine), "an engine was given"
    name = _graph(bundle, sampling)
    if name:
        return WholeFrame(calibration, sampling, bundle, name, threads), f"{name} is made for these steps and samples"
    loop = StepLoop(calibration, sampling, bundle.sigma_range, OnnxEngine(bundle, threads))
    return loop, f"no whole-frame graph is made for {sampling}"


def _eager_torch(bundle: Bundle) -> Engine:
    try:
        from mpi_fast.engines.torch import TorchEngine
        from mpi_fast.training.checkpoint import load_checkpoint
    except ImportError as error:
        raise MPIFastError(f"engine 'torch' needs PyTorch: pip install torch ({error})") from error
    return TorchEngine(load_checkpoint(bundle.checkpoint()))
