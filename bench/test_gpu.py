"""Latency and throughput on a GPU, beside what else one could run there: ``make gpu``.

A round takes a frame, or a batch, from signals in the host's memory to images in the host's memory. Each group is one
comparison, made side by side; `gpu_report.py` makes tables of the JSON. What torch's compiler has a part in has
"compile" in its name: minutes, so `on_gpu.py` runs it last.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from onnx_graph import FixedGraph, why_not
from torch import Tensor, nn

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.torch_device import TorchDeviceEngine
from mpi_fast.errors import DeviceError
from mpi_fast.kernels.capture import Recorded
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Sampling
from mpi_fast.pipelines.device import LONGEST_CAPTURE, DeviceLoop
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.training.checkpoint import Checkpoint, load_checkpoint
from mpi_fast.training.half import half

pytestmark = pytest.mark.gpu
Rows = NDArray[np.complex64]
Measured = tuple[Calibration, Rows]
Run = Callable[[Rows], Any]
DEFAULT = Sampling()
PUBLISHED = Sampling(samples=1, steps=1000, sampler="predictor-corrector", guidance="gradient", consensus=0)


@pytest.fixture(scope="module", autouse=True)
def gpu() -> CupyDevice:
    try:
        return CupyDevice()
    except DeviceError as error:
        pytest.skip(str(error))


def loop(
    calibration: Calibration, batch: int = 1, sampling: Sampling = DEFAULT, captured: bool = True, **options: Any
) -> DeviceLoop:
    """Our pipeline with PyTorch's network, fp16 unless asked for another precision; as a graph, or it is an error."""
    checkpoint, sigma_range = load_checkpoint(Bundle.open().checkpoint()), Bundle.open().sigma_range

    def engine() -> TorchDeviceEngine:
        return TorchDeviceEngine(checkpoint, "cuda:0", **options)

    longest = LONGEST_CAPTURE if captured else 0
    made = DeviceLoop(calibration, sampling, sigma_range, engine, CupyDevice, sorted({1, batch}), longest)
    assert made.graphs[1].captured == captured, made.name
    return made


class InTorch(nn.Module):
    """The same reconstruction, signals to images, written in PyTorch alone: what its compiler gets to optimise."""

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        pytest.importorskip("onnxscript", reason="these modules are the export's, which needs onnxscript")
        from mpi_fast.export.frame import FrameGraph
        from mpi_fast.export.frozen import Reduction

        original = load_checkpoint(Bundle.open().checkpoint())
        network = half(original.network)
        checkpoint = Checkpoint(network, original.grid, original.sigma_range, original.provenance)
        self.reduction = Reduction(calibration)
        self.frame = FrameGraph(checkpoint, DEFAULT.steps, DEFAULT.samples, DEFAULT.consensus)
        noise = mirrored_normal(DEFAULT.seed, DEFAULT.samples, calibration.num_voxels)
        constants = {"values": calibration.singular_values, "basis": calibration.basis, "initial": noise}
        for name, array in constants.items():
            self.register_buffer(name, torch.from_numpy(array))

    def forward(self, real: Tensor, imag: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (F, M) to image and deviation."""
        y, noise, _ = self.reduction(real, imag)
        image, std, _ = self.frame(y, noise, self.values, self.basis, self.initial)
        return image, std


def in_torch(calibration: Calibration, mode: str | None) -> Run:
    module: Any = InTorch(calibration).cuda().eval()
    if mode:
        module = torch.compile(module, mode=mode, dynamic=False)

    @torch.inference_mode()
    def run(rows: Rows) -> list[Tensor]:
        signals = torch.from_numpy(rows).pin_memory().cuda(non_blocking=True)
        return [tensor.cpu() for tensor in module(signals.real.contiguous(), signals.imag.contiguous())]

    return run


def onnx_graph(calibration: Calibration) -> Run:
    """The frozen graph, exported for this scanner and replayed by ONNX Runtime."""
    if reason := why_not():
        pytest.skip(reason)
    pytest.importorskip("onnxscript", reason="the export needs onnxscript")
    from mpi_fast.export.frame import frame_onnx
    from mpi_fast.export.frozen import frozen_onnx

    checkpoint = load_checkpoint(Bundle.open().checkpoint())
    general = frame_onnx(checkpoint, DEFAULT.steps, DEFAULT.samples, DEFAULT.consensus)
    noise = mirrored_normal(DEFAULT.seed, DEFAULT.samples, calibration.num_voxels)
    try:
        return FixedGraph(frozen_onnx(general, calibration).content, noise)
    except DeviceError as error:
        pytest.skip(str(error))


LATENCY: dict[str, tuple[int, Callable[[Calibration], Run]]] = {
    "one CUDA graph, PyTorch fp16 inside": (10_000, loop),
    "one CUDA graph, PyTorch fp16 compiled inside": (10_000, lambda c: loop(c, compiled=True)),
    "one CUDA graph, PyTorch tf32 inside": (1_000, lambda c: loop(c, precision="tf32")),
    "the same kernels without a graph": (500, lambda c: loop(c, captured=False)),
    "ONNX Runtime's own CUDA graph of the frozen frame, fp32 with tf32 products": (1_000, onnx_graph),
    "PyTorch alone, eager": (300, lambda c: in_torch(c, None)),
    "PyTorch alone, torch.compile max-autotune": (2_000, lambda c: in_torch(c, "max-autotune")),
    "ONNX Runtime on the host's CPU": (50, lambda c: Reconstructor(c, device="cpu")),
    "the published setting: 1000 steps, eager PyTorch network": (
        3,
        lambda c: loop(c, 1, PUBLISHED, captured=False, precision="fp32"),
    ),
}


def graph_of(run: Run) -> dict[str, Any]:
    """Whether it is one CUDA graph, for the report; nothing for what is not ours."""
    graphs = getattr(run, "graphs", {})
    return next((state.to_dict() for state in graphs.values()), {})


@pytest.mark.benchmark(group="latency of one frame")
@pytest.mark.parametrize("name", LATENCY)
def test_latency(benchmark: Any, measured: Measured, name: str) -> None:
    calibration, rows = measured
    rounds, make = LATENCY[name]
    run = make(calibration)
    frames = iter(np.tile(np.ascontiguousarray(rows)[:, None], (rounds // len(rows) + 2, 1, 1)))
    benchmark.extra_info.update(graph_of(run))
    benchmark.pedantic(run, setup=lambda: ((next(frames),), {}), rounds=rounds, warmup_rounds=min(20, rounds))


@pytest.mark.benchmark(group="throughput")
@pytest.mark.parametrize("frames", [1, 8, 64, 512, 4096])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_throughput(benchmark: Any, measured: Measured, frames: int, compiled: bool) -> None:
    calibration, rows = measured
    run = loop(calibration, min(frames, 1024), compiled=compiled)
    many = np.resize(rows, (frames, rows.shape[1]))
    before = energy()
    benchmark.pedantic(run, (many,), rounds=30, warmup_rounds=3)
    benchmark.extra_info["frames_per_second"] = frames / benchmark.stats.stats.median
    if before is not None:
        benchmark.extra_info["joules_per_frame"] = (energy() - before) / (33 * frames)


def energy() -> Any:
    """Joules since the driver was loaded, where NVML tells."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1e3
    except Exception:  # no bindings, or a GPU or driver that does not count
        return None


@pytest.mark.benchmark(group="stages of one frame: 50 repetitions in a graph")
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("stage", ["encoder", "denoiser"])
def test_stage(benchmark: Any, measured: Measured, stage: str, compiled: bool) -> None:
    """The kernels' own stages are in test_kernels.py."""
    device, checkpoint = CupyDevice(), load_checkpoint(Bundle.open().checkpoint())
    evaluator = TorchDeviceEngine(checkpoint, "cuda:0", compiled=compiled).bind(1, DEFAULT.samples, device, [1.0])
    evaluator.encode()

    def work() -> None:
        for _ in range(50):
            (evaluator.encode if stage == "encoder" else evaluator.denoise)()

    recorded = Recorded(device, work, evaluator)
    assert recorded.state.captured, recorded.state

    def run() -> None:
        recorded()
        device.wait()

    benchmark.pedantic(run, rounds=50, warmup_rounds=5)
    benchmark.extra_info["nodes"] = recorded.state.nodes // 50
    benchmark.extra_info["seconds"] = benchmark.stats.stats.median / 50
