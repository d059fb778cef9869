"""PyTorch on a GPU, as a CUDA graph can hold it: fixed addresses, nothing read back, convolutions in half precision.

cuDNN's algorithms are chosen by its heuristics, the same in every run. Where the host program has asked for a choice by
timing (``torch.backends.cudnn.benchmark``) results may differ in their last bits from run to run, and the name says so.
"""

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.compiler.config
from torch import Tensor, nn

from mpi_fast.errors import InputError
from mpi_fast.guidance import CONDITION_CHANNELS
from mpi_fast.kernels.launch import Array, Device, Graph
from mpi_fast.training.checkpoint import Checkpoint
from mpi_fast.training.half import half
from mpi_fast.training.network import Modulation
from mpi_fast.training.unrolled import Unrolled

SIZES = 64  # that are compiled, each for itself: torch would stop at 8, and run the others uncompiled
FLOAT32 = {"fp32": "ieee", "tf32": "tf32"}  # what torch calls the precision of its convolutions of float32
SETTING = threading.Lock()  # that precision belongs to the whole process
PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}


class TorchDeviceEngine:
    """The network of a checkpoint.

    Parameters
    ----------
    checkpoint : Checkpoint
        The network.
    place : str
        ``cuda:N``, or ``cpu`` where there is no GPU to test on.
    precision : str
        Of the convolutions: ``fp16``, ``bf16``, ``tf32`` or ``fp32``.
    compiled : bool
        Let torch's compiler fuse the denoiser: minutes once, for each number of frames and samples.

    Raises
    ------
    InputError
        For an unknown precision.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        place: str = "cuda:0",
        precision: str = "fp16",
        compiled: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision '{precision}': expected one of {', '.join(PRECISIONS)}")
        timed = ", algorithms by timing" if torch.backends.cudnn.benchmark else ""
        self.name = f"PyTorch, {precision}{', compiled' if compiled else ''}{timed}"
        self.grid, self.place = checkpoint.grid, place
        self.float32, self.compiled = FLOAT32.get(precision), compiled
        if compiled:
            torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, SIZES)
        network = half(checkpoint.network, PRECISIONS[precision]).to(place)
        self.network = nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
        if place != "cpu":
            torch.cuda.synchronize(place)  # the weights are made on a stream that ours do not wait for

    def fits(self, frames: int, samples: int) -> bool:
        """Any number of either."""
        return frames > 0 and samples > 0

    def bind(
        self, frames: int, samples: int, device: Device, sigmas: Sequence[float], *, relative: bool = False
    ) -> "TorchDeviceEvaluator":
        """Buffers for ``frames`` frames with ``samples`` samples each, used on the stream of ``device``.

        ``sigmas`` are the noise levels of the evaluations, in the order in which they come: what the network makes of
        them is computed here. With ``relative`` they are relative to what ``sigma`` holds at the first of them: then
        it is computed there, for all at once.
        """
        return TorchDeviceEvaluator(self, frames, samples, device, sigmas, relative)


class TorchDeviceEvaluator:
    """See `denoiser.Evaluator`; the arrays are the device's, and share their memory with tensors."""

    def __init__(
        self,
        engine: TorchDeviceEngine,
        frames: int,
        samples: int,
        device: Device,
        sigmas: Sequence[float],
        relative: bool,
    ) -> None:
        batch, grid = frames * samples, engine.grid
        self._device, self._on_gpu = device, engine.place != "cpu"
        self._stream: Any = None
        if self._on_gpu:
            self._stream = torch.cuda.ExternalStream(device.stream_address, engine.place)  # type: ignore[no-untyped-call]
        self._float32 = engine.float32
        with self._settings(), torch.no_grad():
            self._condition = torch.zeros(frames, CONDITION_CHANNELS, *grid, device=engine.place)
            self._image = torch.zeros(batch, 3, *grid, device=engine.place)
            self._sigma = torch.zeros(batch, device=engine.place)
            self._relative = torch.tensor(sigmas, device=engine.place)[:, None] if relative else None
            known = [] if relative else sigmas
            self._network = Unrolled(engine.network, known, samples)
            self._levels: list[tuple[float | Tensor, list[Modulation]]]
            self._levels = [(1.0 / math.hypot(1.0, s), self._network.modulations(k)) for k, s in enumerate(known)]
        self.condition, self.image, self.sigma = map(self._array, (self._condition, self._image, self._sigma))
        self._evaluations = len(sigmas)
        self._correct: Callable[..., Tensor] = self._network
        if engine.compiled:
            self._correct = torch.compile(self._network, mode="max-autotune-no-cudagraphs", dynamic=False)
        self._number = 0
        self._features, self._denoised = self._sigma, self._sigma  # kept alive as long as the stream may read them

    @torch.inference_mode()
    def encode(self) -> None:
        """Run the encoder on ``condition``."""
        with self._settings():
            self._features = self._network.encode(self._condition.contiguous(memory_format=torch.channels_last))

    def restart(self) -> None:
        """The next evaluation is the first."""
        self._number = 0

    @torch.inference_mode()
    def denoise(self) -> Array:
        """Run the denoiser on ``image``, at the noise level of the next evaluation; the first follows the last."""
        with self._settings():
            estimate, deviation, noisy = self._image.chunk(3, dim=1)
            if self._relative is not None and self._number == 0:
                self._levels = self._of_all(self._relative * self._sigma)
            c_in, modulations = self._levels[self._number]
            planes = torch.cat([estimate, 0.5 * torch.log(deviation), c_in * noisy], dim=1)
            planes = planes.contiguous(memory_format=torch.channels_last)
            correction = self._correct(planes, self._features, modulations)
            self._denoised = torch.addcmul(estimate, deviation, correction).contiguous()
        self._number = (self._number + 1) % self._evaluations
        return self._array(self._denoised)

    def _of_all(self, sigmas: Tensor) -> list[tuple[float | Tensor, list[Modulation]]]:
        """c_in and modulations of each evaluation, at noise levels (evaluations, B)."""
        c_in = torch.rsqrt(1.0 + sigmas * sigmas)[:, :, None, None, None]
        modulations = self._network.denoiser.modulations(sigmas.flatten())
        parts = [[part.reshape(*sigmas.shape, *part.shape[1:]) for part in pair] for pair in modulations]
        return [(c_in[k], [(gain[k], shift[k]) for gain, shift in parts]) for k in range(len(sigmas))]

    def record(self, work: Callable[[], None]) -> Graph:
        """See `capture.Recorder`: this network and kernels alike.

        PyTorch does the recording, so that the memory between its operations belongs to the graph.
        """
        if not self._on_gpu:
            return self._device.record(work)
        return TorchGraph(work, self._stream)

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """Everything on the device's stream, convolutions of float32 as precise as they are asked to be."""
        stream = torch.cuda.stream(self._stream) if self._on_gpu else contextlib.nullcontext()
        with stream, float32_precision(self._float32):
            yield

    def _array(self, tensor: Tensor) -> Array:
        """The same memory as an array of the device."""
        # Not by DLPack: it makes streams wait for each other, which no capture allows.
        return self._device.asarray(tensor if self._on_gpu else tensor.numpy())


class TorchGraph:
    """See `launch.Graph`; what PyTorch allocated meanwhile belongs to it."""

    def __init__(self, work: Callable[[], None], stream: Any) -> None:
        from mpi_fast.kernels.cupy_device import count_nodes

        self._stream, self._graph = stream, torch.cuda.CUDAGraph(keep_graph=True)
        with torch.cuda.graph(self._graph, stream=stream, capture_error_mode="relaxed"):
            work()
        self.nodes = count_nodes(self._graph.raw_cuda_graph())
        self._graph.instantiate()

    def launch(self) -> None:
        """See `launch.Graph`."""
        with torch.cuda.stream(self._stream):
            self._graph.replay()


@contextlib.contextmanager
def float32_precision(wanted: str | None) -> Iterator[None]:
    """Convolutions of float32 as ``ieee`` or ``tf32``; None for networks that have no such convolutions.

    The setting is the process's. It is changed where it differs, for as long as work is enqueued, and put back; the
    replay of a graph needs none.
    """
    convolutions: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]  # of torch 2.9 and newer
    if wanted is None or convolutions.fp32_precision == wanted:
        yield
        return
    with SETTING:
        before = convolutions.fp32_precision
        convolutions.fp32_precision = wanted
        try:
            yield
        finally:
            convolutions.fp32_precision = before
