"""Latency and throughput on this machine: ``make bench``. The published method takes 2.49 s a frame on an RTX 4090.

Each group of the report is one comparison in one run; the number in brackets is the ratio to the fastest of the group.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from by_torch import images, trained
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.methods import create
from mpi_fast.preprocessing import RowFilter
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner

Rows = NDArray[np.complex64]
Measured = tuple[Calibration, Rows]
Build = Callable[[Calibration], Callable[[Rows], Any]]


def ours(calibration: Calibration, **options: Any) -> Reconstructor:
    return Reconstructor(calibration, device="cpu", inspect=False, **options)


def by_pytorch(calibration: Calibration) -> Callable[[Rows], Any]:
    torch.set_num_threads(1)  # as for our single frames; with two threads its small operators take longer
    return partial(images, trained(), calibration)


LATENCY: dict[str, Build] = {
    "the default": ours,
    "the default, frames inspected": partial(Reconstructor, device="cpu"),
    "one evaluation": partial(ours, evaluations=1),
    "one evaluation by eager PyTorch": by_pytorch,
}


@pytest.mark.benchmark(group="one frame")
@pytest.mark.parametrize("name", LATENCY)
def test_latency(benchmark: Any, measured: Measured, name: str) -> None:
    calibration, rows = measured
    benchmark.pedantic(LATENCY[name](calibration), (rows[:1],), rounds=100, warmup_rounds=10)


@pytest.mark.benchmark(group="one frame as published, a thousand steps of predictor and corrector, beside the default")
@pytest.mark.parametrize("name", ["paper", "posterior"])
def test_published_setting(benchmark: Any, measured: Measured, name: str) -> None:
    calibration, rows = measured
    benchmark.pedantic(create(name, calibration), (rows[:1],), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="throughput: time for a batch of frames")
@pytest.mark.parametrize("evaluations", [2, 1])
@pytest.mark.parametrize("frames", [1, 8, 64])
def test_throughput(benchmark: Any, measured: Measured, frames: int, evaluations: int) -> None:
    calibration, rows = measured
    reconstruct = ours(calibration, evaluations=evaluations)
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
