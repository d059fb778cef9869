"""TensorRT inside a captured loop: encoder and denoiser bound to a device's arrays and enqueued on its stream."""

from collections.abc import Callable, Sequence

import numpy as np

from mpi_fast.bundle import Bundle
from mpi_fast.engines.onnx import SCORE
from mpi_fast.engines.tensorrt import Bound, Plan, open_plan
from mpi_fast.errors import InputError
from mpi_fast.kernels.launch import Array, Device, Graph

ALIGNMENT = 256  # of scratch memory; CuPy's and CUDA's own allocations have it


class TensorRTDeviceEngine:
    """The engines of a bundle for the GPU at hand.

    Parameters
    ----------
    bundle : Bundle
        An opened bundle.
    precision : str
        ``fp32`` (with TF32 if the engines were built so), or ``fp16`` for the denoiser, if the bundle has it.
    rebuild : bool
        Whether to build engines that the bundle lacks, see `tensorrt.open_plan`, which says what this raises.
    """

    def __init__(self, bundle: Bundle, precision: str = "fp16", *, rebuild: bool = False) -> None:
        if precision not in SCORE:
            raise InputError(f"precision '{precision}': TensorRT's engines have {' or '.join(SCORE)}")
        self.encoder = open_plan(bundle, "encoder.onnx", rebuild=rebuild)
        self.denoiser = open_plan(bundle, SCORE[precision], rebuild=rebuild)
        self.name = f"{self.denoiser.facts.package} {self.denoiser.facts.version}, {precision}"

    def fits(self, frames: int, samples: int) -> bool:
        """Whether the engines were built for batches this large."""
        return frames <= max(self.encoder.facts.batches) and frames * samples <= max(self.denoiser.facts.batches)

    def bind(
        self, frames: int, samples: int, device: Device, sigmas: Sequence[float], *, relative: bool = False
    ) -> "TensorRTDeviceEvaluator":
        """Buffers for ``frames`` frames with ``samples`` samples each, used on the stream of ``device``.

        The noise levels of the evaluations, ``sigmas``, need not be known beforehand: the denoiser reads its ``sigma``.
        """
        return TensorRTDeviceEvaluator(self, frames, samples, device)


class TensorRTDeviceEvaluator:
    """See `denoiser.Evaluator`; the arrays are the device's, and nothing is allocated after construction."""

    def __init__(self, engine: TensorRTDeviceEngine, frames: int, samples: int, device: Device) -> None:
        self._device = device
        encoder, self._scratch_encoder, self._encode = bind(engine.encoder, frames, device)
        denoiser, self._scratch_denoiser, self._denoise = bind(engine.denoiser, frames * samples, device)
        self.condition, self._encoded = encoder["condition"], encoder["features"]
        self.image, self.sigma, self._denoised = denoiser["image"], denoiser["sigma"], denoiser["denoised"]
        features = denoiser["features"]
        self._features = features.reshape(frames, samples, *features.shape[1:])

    def encode(self) -> None:
        """Enqueue the encoder on ``condition``; every sample of a frame gets its features."""
        self._encode.enqueue()
        with self._device.active():
            self._features[:] = self._encoded[:, None]

    def denoise(self) -> Array:
        """Enqueue the denoiser on ``image`` and ``sigma``."""
        self._denoise.enqueue()
        return self._denoised

    def record(self, work: Callable[[], None]) -> Graph:
        """See `Device.record`."""
        return self._device.record(work)


def bind(plan: Plan, batch: int, device: Device) -> tuple[dict[str, Array], Array, Bound]:
    """Buffers of an engine's tensors, filled with ones, its scratch memory, and the engine bound to both."""
    buffers = {name: device.empty(tensor.sized(batch), tensor.dtype) for name, tensor in plan.tensors.items()}
    scratch = device.empty((plan.workspace(batch) + ALIGNMENT,), np.uint8)
    with device.active():
        for array in buffers.values():
            array[:] = 1
    addresses = {name: device.address(array) for name, array in buffers.items()}
    workspace = -(-device.address(scratch) // ALIGNMENT) * ALIGNMENT
    return buffers, scratch, plan.bind(batch, addresses, workspace, device.stream_address)
