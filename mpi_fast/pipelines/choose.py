"""Which pipeline reconstructs: what the caller asked for, or the best that this machine and this model have."""

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines import Engine
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.pipelines import Pipeline, Sampling
from mpi_fast.pipelines.graph import WholeFrame
from mpi_fast.pipelines.steps import StepLoop

ENGINES = ("auto", "tensorrt", "torch", "onnx")


def choose(
    calibration: Calibration,
    bundle: Bundle,
    sampling: Sampling,
    device: str = "auto",
    engine: str | Engine = "auto",
    threads: int | None = None,
) -> tuple[Pipeline, str]:
    """A pipeline, and why this one.

    Parameters
    ----------
    calibration, bundle, sampling
        What to reconstruct with.
    device, engine, threads
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
    if device not in ("auto", "cpu"):
        raise InputError(f"device '{device}': expected auto or cpu")
    return _on_cpu(calibration, bundle, sampling, engine, threads)


def _on_cpu(
    calibration: Calibration, bundle: Bundle, sampling: Sampling, engine: str | Engine, threads: int | None
) -> tuple[Pipeline, str]:
    if engine == "tensorrt":
        raise InputError("engine 'tensorrt' runs on a GPU: expected auto, onnx or torch on the CPU")
    if engine == "torch":
        return StepLoop(calibration, sampling, bundle.sigma_range, _eager_torch(bundle)), "as asked for"
    if not isinstance(engine, str):
        return StepLoop(calibration, sampling, bundle.sigma_range, engine), "an engine was given"
    name = bundle.frame_graph(sampling.steps, sampling.samples) if sampling.is_default_method else None
    if name:
        return WholeFrame(calibration, sampling, bundle, name, threads), f"{name} is made for these steps and samples"
    loop = StepLoop(calibration, sampling, bundle.sigma_range, OnnxEngine(bundle, threads))
    return loop, f"no graph for {sampling.steps} steps, {sampling.samples} samples of {sampling.sampler}"


def _eager_torch(bundle: Bundle) -> Engine:
    try:
        from mpi_fast.engines.torch import TorchEngine
        from mpi_fast.training.checkpoint import load_checkpoint
    except ImportError as error:
        raise MPIFastError(f"engine 'torch' needs PyTorch: pip install torch ({error})") from error
    return TorchEngine(load_checkpoint(bundle.checkpoint()))
