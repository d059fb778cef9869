"""The posterior network on a GPU, beside what else one could run there: latency and throughput, ``make gpu``.

A round takes a frame, or a batch, from signals in the host's memory to images in the host's memory. The opponents are
as strong as we can make them: PyTorch with channels last, fp16 and algorithms by timing, its compiler on one graph
without a break, and ONNX Runtime.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from mpi_fast.export.frame import scale_and_presence
from mpi_fast.pipelines.posterior_device import PosteriorOnDevice
from numpy.typing import NDArray
from test_gpu import energy, graph_of
from torch import Tensor, nn

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import MPIFastError
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.training.checkpoint import load_trained
from mpi_fast.training.posterior import Signals

pytestmark = pytest.mark.gpu
Rows = NDArray[np.complex64]
Run = Callable[[Rows], Any]


@pytest.fixture(scope="module", autouse=True)
def gpu() -> CupyDevice:
    try:
        return CupyDevice()
    except MPIFastError as error:
        pytest.skip(str(error))


def kernels(calibration: Calibration, batch: int = 1) -> Run:
    """Our own, as one graph, or it is an error."""
    made = PosteriorOnDevice(calibration, Bundle.open("posterior"), CupyDevice, sorted({1, batch}))
    assert made.graphs[1].captured, made.name
    return made


class InTorch(nn.Module):
    """The same frame, signals to images, in PyTorch alone."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        from mpi_fast.export.frozen import Reduction

        self.reduction, self.grid = Reduction(calibration), (1, *calibration.grid)
        network = load_trained(Bundle.open("posterior").checkpoint()).network
        self.network = nn.utils.convert_conv2d_weight_memory_format(network, torch.channels_last)
        for name, array in {"values": calibration.singular_values, "basis": calibration.basis}.items():
            self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(array)))

    def forward(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (F, M) to image and deviation (F, N)."""
        y, noise, _ = self.reduction(real, imag)
        scale, presence = scale_and_presence(y, noise[:, None], self.values)
        given = (y / scale)[None], (noise[:, None] / scale)[:, 0][None], self.values[None], self.basis[None]
        found = self.network(Signals.of(*given), self.grid)
        return torch.clamp(found.image[0], min=0.0) * (presence * scale), torch.exp(found.log_error[0]) * scale


def in_torch(calibration: Calibration, mode: str | None = None) -> Run:
    torch.backends.cudnn.benchmark = True  # this process measures, and does nothing else
    module: Any = InTorch(calibration).cuda().eval()
    if mode:
        module = torch.compile(module, mode=mode, dynamic=False, fullgraph=True)

    @torch.inference_mode()
    def run(rows: Rows) -> list[Tensor]:
        signals = torch.from_numpy(rows).pin_memory().cuda(non_blocking=True)
        with torch.autocast("cuda", torch.float16):
            found = module(signals.real.contiguous(), signals.imag.contiguous())
        return [tensor.cpu() for tensor in found]

    return run


def by_onnx(calibration: Calibration) -> Run:
    try:
        return Reconstructor(calibration, "posterior", device="cuda", engine="onnx")
    except MPIFastError as error:
        pytest.skip(str(error))


LATENCY: dict[str, tuple[int, Callable[[Calibration], Run]]] = {
    "posterior network: one CUDA graph of our kernels": (10_000, kernels),
    "posterior network: PyTorch, eager, fp16": (300, in_torch),
    "posterior network: ONNX Runtime on the GPU": (500, by_onnx),
    "posterior network: ONNX Runtime on the host's CPU": (
        200,
        lambda c: Reconstructor(c, "posterior", device="cpu", inspect=False),
    ),
    "posterior network: torch.compile max-autotune, fp16": (2_000, lambda c: in_torch(c, "max-autotune")),
}


@pytest.mark.benchmark(group="latency of one frame")
@pytest.mark.parametrize("name", LATENCY)
def test_latency(benchmark: Any, measured: Any, name: str) -> None:
    calibration, rows = measured
    rounds, make = LATENCY[name]
    run = make(calibration)
    frames = iter(np.tile(np.ascontiguousarray(rows)[:, None], (rounds // len(rows) + 2, 1, 1)))
    benchmark.extra_info.update(graph_of(run))
    benchmark.pedantic(run, setup=lambda: ((next(frames),), {}), rounds=rounds, warmup_rounds=min(20, rounds))


@pytest.mark.benchmark(group="throughput of the posterior network")
@pytest.mark.parametrize("frames", [1, 8, 64, 512, 4096])
def test_throughput(benchmark: Any, measured: Any, frames: int) -> None:
    calibration, rows = measured
    run = kernels(calibration, min(frames, 1024))
    many = np.resize(rows, (frames, rows.shape[1]))
    before = energy()
    benchmark.pedantic(run, (many,), rounds=30, warmup_rounds=3)
    benchmark.extra_info["frames_per_second"] = frames / benchmark.stats.stats.median
    if before is not None:
        benchmark.extra_info["joules_per_frame"] = (energy() - before) / (33 * frames)
