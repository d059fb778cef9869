"""Latency and throughput on this machine: ``make bench``. The published method takes 2.49 s a frame on an RTX 4090.

Each group of the report is one comparison, made side by side in one run; the number in brackets is the factor to the
fastest of the group.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines import Engine
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.pipelines import Sampling
from mpi_fast.preprocessing import RowFilter
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner

Measured = tuple[Calibration, NDArray[np.complex64]]
DEFAULT = Sampling()


ENGINES: dict[str, Callable[[], str | Engine]] = {
    "ONNX Runtime, one graph": lambda: "onnx",
    "ONNX Runtime, step by step": lambda: OnnxEngine(Bundle.open()),
    "eager PyTorch": lambda: "torch",
}


@pytest.mark.benchmark(group=f"one frame, {DEFAULT.samples} samples, {DEFAULT.steps} steps")
@pytest.mark.parametrize("name", ENGINES)
def test_latency(benchmark: Any, measured: Measured, name: str) -> None:
    calibration, rows = measured
    reconstruct = Reconstructor(calibration, engine=ENGINES[name](), device="cpu")
    benchmark.pedantic(reconstruct, (rows[:1],), rounds=100, warmup_rounds=10)


@pytest.mark.benchmark(group="the published setting beside the default: one frame")
@pytest.mark.parametrize("preset", ["default", "predictor-corrector, 1000 steps, 1 sample"])
def test_published_setting(benchmark: Any, measured: Measured, preset: str) -> None:
    calibration, rows = measured
    published: dict[str, Any] = {"samples": 1, "steps": 1000, "sampler": "predictor-corrector", "guidance": "gradient"}
    options = {} if preset == "default" else {**published, "consensus": 0}
    reconstruct = Reconstructor(calibration, device="cpu", **options)
    benchmark.pedantic(reconstruct, (rows[:1],), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="throughput: time for a batch of frames")
@pytest.mark.parametrize("frames", [1, 8, 64])
def test_throughput(benchmark: Any, measured: Measured, frames: int) -> None:
    calibration, rows = measured
    reconstruct = Reconstructor(calibration)
    result = benchmark.pedantic(reconstruct, (rows[:frames],), rounds=max(3, 40 // frames), warmup_rounds=2)
    assert len(result) == frames
    benchmark.extra_info["frames_per_second"] = frames / benchmark.stats.stats.median


@pytest.mark.benchmark(group="reduction of one frame, by number of rows M")
@pytest.mark.parametrize("rows", [150, 500, 2451])
def test_reduction(benchmark: Any, rows: int) -> None:
    scanner = Scanner()
    matrix = scanner.system_matrix()
    strength = np.linalg.norm(matrix, axis=2)
    keep = np.sort(strength.ravel())[-rows]
    calibration = Calibration.from_arrays(
        matrix,
        scanner.frequencies,
        scanner.grid,
        scanner.field_of_view,
        snr=strength,
        rows=RowFilter(snr_threshold=float(keep), min_frequency=0.0),
    )
    frame = calibration.matrix[:, 180][None]
    assert calibration.num_rows == rows
    benchmark(calibration.reduce, frame)
