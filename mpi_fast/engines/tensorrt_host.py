"""TensorRT for arrays in the host's memory: ``Reconstructor(calibration, engine=TensorRTEngine(bundle))``.

Every number of frames gets device buffers of its own and a CUDA graph that is replayed on them. CuPy allocates
and copies.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.engines.frame import constants
from mpi_fast.engines.onnx import SCORE
from mpi_fast.engines.tensorrt import Plan, open_plan

if TYPE_CHECKING:
    from mpi_fast.bundle import Bundle
    from mpi_fast.calibration import Calibration

Array = NDArray[np.float32]


class Replay:
    """An engine captured as a CUDA graph on device buffers.

    Parameters
    ----------
    plan : Plan
        The engine.
    batch : int
        Its batch.
    stream : cupy.cuda.Stream
        Not the default one.
    given : dict, optional
        Device arrays to use for some of the tensors; the others are allocated.
    """

    def __init__(self, plan: Plan, batch: int, stream: Any, given: Mapping[str, Any] | None = None) -> None:
        import cupy

        with stream:  # what CuPy does here, it does on this stream
            self.buffers = dict(given or {})
            for name, tensor in plan.tensors.items():
                if name not in self.buffers:
                    self.buffers[name] = cupy.ones(tensor.sized(batch), tensor.dtype)
            self._workspace = cupy.empty(plan.workspace(batch), cupy.uint8)
            addresses = {name: array.data.ptr for name, array in self.buffers.items()}
            self._bound = plan.bind(batch, addresses, self._workspace.data.ptr, stream.ptr)
            stream.synchronize()
            stream.begin_capture()
            try:
                self._bound.enqueue()
            finally:
                self._graph = stream.end_capture()
        self._stream = stream

    def launch(self) -> None:
        """Put a run on the stream; returns at once."""
        self._graph.launch(self._stream)


class TensorRTEngine:
    """The encoder and the denoiser of a bundle as TensorRT engines.

    Parameters
    ----------
    bundle : Bundle
        An opened bundle.
    precision : str
        ``fp32``, or ``fp16`` for the denoiser in half precision, if the bundle has it.
    rebuild : bool
        Whether to build engines that the bundle lacks, see `tensorrt.open_plan`, which says what this raises.
    """

    name = "tensorrt"

    def __init__(self, bundle: "Bundle", precision: str = "fp32", *, rebuild: bool = False) -> None:
        self.encoder = open_plan(bundle, "encoder.onnx", rebuild=rebuild)
        self.denoiser = open_plan(bundle, SCORE[precision], rebuild=rebuild)

    def bind(self, frames: int, samples: int) -> "TensorRTEvaluator":
        """Buffers and graphs for ``frames`` frames with ``samples`` samples each."""
        return TensorRTEvaluator(self, frames, samples)


class TensorRTEvaluator:
    """See `denoiser.Evaluator`; the features stay on the GPU, and nothing is allocated after construction."""

    def __init__(self, engine: TensorRTEngine, frames: int, samples: int) -> None:
        import cupy

        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._encoder = Replay(engine.encoder, frames, self._stream)
        self._denoiser = Replay(engine.denoiser, frames * samples, self._stream)
        self._encoded = self._encoder.buffers["features"]
        features = self._denoiser.buffers["features"]
        self._features = features.reshape(frames, samples, *features.shape[1:])
        self.condition: Array = _pinned(self._encoder.buffers["condition"])
        self.image: Array = _pinned(self._denoiser.buffers["image"])
        self.sigma: Array = _pinned(self._denoiser.buffers["sigma"])
        self._denoised: Array = _pinned(self._denoiser.buffers["denoised"])

    def encode(self) -> None:
        """Run the encoder on ``condition``; every sample of a frame gets its features."""
        with self._stream:
            self._encoder.buffers["condition"].set(self.condition)
            self._encoder.launch()
            self._features[:] = self._encoded[:, None]

    def denoise(self) -> Array:
        """Run the denoiser on ``image`` and ``sigma``."""
        with self._stream:
            self._denoiser.buffers["image"].set(self.image)
            self._denoiser.buffers["sigma"].set(self.sigma)
            self._denoiser.launch()
            self._denoiser.buffers["denoised"].get(out=self._denoised)
            self._stream.synchronize()
        return self._denoised


class TensorRTFrames:
    """The whole-frame graph of a bundle as a TensorRT engine, with the tensors of one calibration bound to it.

    Parameters
    ----------
    bundle, name, calibration, initial
        As for `frame.FrameEngine`.
    rebuild : bool
        As for `TensorRTEngine`.
    """

    def __init__(
        self, bundle: "Bundle", name: str, calibration: "Calibration", initial: Array, *, rebuild: bool = False
    ) -> None:
        import cupy

        self._plan = open_plan(bundle, name, rebuild=rebuild)
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._rank, self._voxels = calibration.rank, calibration.num_voxels
        with self._stream:
            self._constants = {key: cupy.asarray(array) for key, array in constants(calibration, initial).items()}
        self._replays: dict[int, Replay] = {}

    def __call__(self, y: Array, noise: Array) -> tuple[Array, Array, Array]:
        """Reconstruct frames, see `frame.FrameEngine`; fresh arrays."""
        frames = len(y)
        if frames not in self._replays:
            self._replays[frames] = Replay(self._plan, frames, self._stream, self._constants)
        replay = self._replays[frames]
        padded = np.zeros((frames, self._voxels), np.float32)
        padded[:, : self._rank] = y
        with self._stream:
            replay.buffers["y"].set(padded)
            replay.buffers["noise"].set(np.ascontiguousarray(noise))
            replay.launch()
            image, std, floor = (replay.buffers[name].get() for name in ("image", "std", "noise_floor"))
            self._stream.synchronize()
        return image.reshape(frames, -1), std.reshape(frames, -1), floor


def _pinned(device: Any) -> Array:
    """Zeros in page-locked memory, for a device array."""
    import cupyx

    host: Array = cupyx.zeros_pinned(device.shape, device.dtype)
    return host
