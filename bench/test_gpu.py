"""Latency and throughput on a GPU, compared with other ways to run the network there: ``make gpu``.

A round takes a frame, or a batch, from signals in host memory to images in host memory. All programs evaluate the
network equally often. Each group is one comparison in one run; `gpu_report.py` makes tables of the JSON. The opponents
are as strong as we can make them. They run the frozen graph of the scanner with convolutions in float16: PyTorch with
channels last and algorithms chosen by timing, its compiler without graph breaks, ONNX Runtime with its own CUDA graph,
and TensorRT if it is installed. Networks that take minutes to make have "compiled" or "exported" in their names, so
that `on_gpu.py` runs them last.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from by_torch import trained
from numpy.typing import NDArray
from onnx_graph import FixedGraph, why_not
from torch import Tensor, nn

from mpi_fast.bundle import FROZEN, Bundle, half_name, write_bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import DeviceError, MPIFastError
from mpi_fast.export.frame import Frame
from mpi_fast.export.half import half
from mpi_fast.export.scanner_graph import Frozen, frozen_graph
from mpi_fast.export.tensorrt import add_engines, choose
from mpi_fast.frozen import fingerprint
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.limits import EVALUATIONS
from mpi_fast.pipelines.device import PosteriorOnDevice
from mpi_fast.pipelines.tensorrt_frozen import TensorRTFrozen
from mpi_fast.reconstructor import Reconstructor

pytestmark = pytest.mark.gpu
Rows = NDArray[np.complex64]
Run = Callable[[Rows], Any]
EXPORTED: dict[str, bytes] = {}  # frozen graphs of scanners, each of which takes minutes to make


@pytest.fixture(scope="module", autouse=True)
def gpu() -> CupyDevice:
    try:
        return CupyDevice()
    except DeviceError as error:
        pytest.skip(str(error))


def kernels(calibration: Calibration, batch: int = 1) -> Run:
    """The network's own kernels; fails unless they are one CUDA graph."""
    made = PosteriorOnDevice(calibration, Bundle.open(), CupyDevice, sorted({1, batch}))
    assert made.graphs[1].captured, made.name
    return made


def frozen(calibration: Calibration) -> nn.Module:
    """The same computation, from signals to images, as a module of PyTorch."""
    module = Frozen(half(Frame(trained())), calibration).eval()
    return nn.utils.convert_conv2d_weight_memory_format(module, torch.channels_last)


def in_torch(calibration: Calibration, mode: str | None = None) -> Run:
    torch.backends.cudnn.benchmark = True  # acceptable because this process only measures
    module: Any = frozen(calibration).cuda()
    if mode:
        module = torch.compile(module, mode=mode, dynamic=False, fullgraph=True)

    @torch.inference_mode()
    def run(rows: Rows) -> list[Tensor]:
        signals = torch.from_numpy(rows).pin_memory().cuda(non_blocking=True)
        return [tensor.cpu() for tensor in module(signals.real.contiguous(), signals.imag.contiguous())]

    return run


def exported(calibration: Calibration) -> bytes:
    """The same computation as an ONNX file."""
    scanner = fingerprint(calibration)
    if scanner not in EXPORTED:
        EXPORTED[scanner] = frozen_graph(half(Frame(trained())), calibration).content
    return EXPORTED[scanner]


def in_onnx_runtime(calibration: Calibration) -> Run:
    """ONNX Runtime without this project."""
    if reason := why_not():
        pytest.skip(reason)
    try:
        return FixedGraph(exported(calibration))
    except DeviceError as error:
        pytest.skip(str(error))


def in_tensorrt(calibration: Calibration) -> Run:
    """A TensorRT engine that is built here, in one CUDA graph."""
    bundle, name = Bundle.open(), half_name(FROZEN)
    try:
        trt, capabilities = choose()
        contents = {file: bundle.read(file) for file in bundle.manifest["files"]}
        contents[name] = exported(calibration)
        facts = {"file": name, "scanner": fingerprint(calibration), "source": "bench", "evaluations": EVALUATIONS}
        with tempfile.TemporaryDirectory() as folder:
            bundle = write_bundle(Path(folder) / "bundle", {**bundle.manifest, "frozen": [facts]}, contents)
            bundle = add_engines(bundle, trt, capabilities, (1,), True, lambda *_: None)
            return TensorRTFrozen(calibration, bundle, CupyDevice())
    except MPIFastError as error:
        pytest.skip(str(error))


def by_reconstructor(calibration: Calibration, device: str) -> Run:
    try:
        return Reconstructor(calibration, device=device, engine="onnx", inspect=False)
    except MPIFastError as error:
        pytest.skip(str(error))


LATENCY: dict[str, tuple[int, Callable[[Calibration], Run]]] = {
    "one CUDA graph of our kernels": (10_000, kernels),
    "PyTorch, eager, fp16": (300, in_torch),
    "ONNX Runtime on the GPU, fp32": (500, lambda c: by_reconstructor(c, "cuda")),
    "ONNX Runtime on the host's CPU": (200, lambda c: by_reconstructor(c, "cpu")),
    "PyTorch, compiled by torch.compile max-autotune, fp16": (2_000, lambda c: in_torch(c, "max-autotune")),
    "ONNX Runtime's own CUDA graph of the exported frame, fp16": (1_000, in_onnx_runtime),
    "TensorRT's engine of the exported frame, fp16": (2_000, in_tensorrt),
}


@pytest.mark.benchmark(group="latency of one frame")
@pytest.mark.parametrize("name", LATENCY)
def test_latency(benchmark: Any, measured: Any, name: str) -> None:
    calibration, rows = measured
    rounds, make = LATENCY[name]
    run = make(calibration)
    frames = iter(np.tile(np.ascontiguousarray(rows)[:, None], (rounds // len(rows) + 2, 1, 1)))
    benchmark.pedantic(run, setup=lambda: ((next(frames),), {}), rounds=rounds, warmup_rounds=min(20, rounds))
    if isinstance(run, PosteriorOnDevice | TensorRTFrozen):
        benchmark.extra_info.update(run.graphs[1].to_dict())


OF_A_VOLUME = {name: LATENCY[name] for name in ("one CUDA graph of our kernels", "ONNX Runtime on the GPU, fp32")}


@pytest.mark.benchmark(group="latency of one volume of 19 x 19 x 19 voxels")
@pytest.mark.parametrize("name", OF_A_VOLUME)
def test_latency_of_a_volume(benchmark: Any, volume: Any, name: str) -> None:
    calibration, rows = volume
    rounds, make = OF_A_VOLUME[name]
    run = make(calibration)
    benchmark.pedantic(run, (rows,), rounds=rounds // 10, warmup_rounds=5)
    if isinstance(run, PosteriorOnDevice):
        benchmark.extra_info.update(run.graphs[1].to_dict())


@pytest.mark.benchmark(group="throughput")
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


def energy() -> Any:
    """Energy in joules since the driver was loaded, or None if NVML does not report it."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1e3
    except Exception:  # no bindings, or a GPU or driver that does not count
        return None
