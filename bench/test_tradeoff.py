"""Latency against quality over steps, samples and consensus: on a GPU in ``make gpu``, on the CPU to rehearse that.

Every setting needs its own graph. On a GPU 17 of them should take about a minute: some 2 s each for the network's
buffers, the choice of convolutions and the capture, then 362 frames of a few ms. `on_gpu.py` allows 100 s. The
rehearsal takes 17 times 12 frames of 50 to 500 ms: 45 s on two busy cores.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from heldout import measure
from numpy.typing import NDArray
from tradeoff import GROUP, SNR_DB, SWEEPS, judge, settings, title

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.comparison import Setup
from mpi_fast.engines import Engine
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.errors import DeviceError
from mpi_fast.heldout import SCANNERS, phantoms
from mpi_fast.machine import processor
from mpi_fast.pipelines import Pipeline, Sampling
from mpi_fast.pipelines.choose import choose

SEED = 2026  # of the phantoms


class Counts(NamedTuple):
    """How many frames are judged, and how many are timed after how many that are not."""

    frames: int
    rounds: int
    warmup: int


COUNTS = {"cuda": Counts(42, 300, 20), "cpu": Counts(7, 4, 1)}


@pytest.fixture(scope="module")
def frames(
    scanner: tuple[Calibration, NDArray[np.complex64]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Selected rows (F, M) and true images (F, ny, nx) of scanner A."""
    calibration, matrix = scanner
    truth = phantoms(max(counts.frames for counts in COUNTS.values()), SEED)
    file = Path(tmp_path_factory.mktemp("frames")) / "m.mdf"
    return measure(SCANNERS[0], matrix, calibration, truth, SNR_DB, file), truth


def pipeline(calibration: Calibration, sampling: Sampling, device: str) -> tuple[Pipeline, str]:
    """What runs, and its name: PyTorch in fp16 on a GPU, ONNX Runtime step by step on the CPU, for every setting."""
    bundle = Bundle.open()
    engine: str | Engine = "torch" if device == "cuda" else OnnxEngine(bundle)
    made, _ = choose(calibration, bundle, sampling, device, engine)
    return made, made.name if device == "cuda" else f"a CPU, {processor()} ({made.name})"


@pytest.mark.benchmark(group=GROUP)
@pytest.mark.parametrize("device", [pytest.param("cuda", marks=pytest.mark.gpu), "cpu"])
@pytest.mark.parametrize("sampling", settings(), ids=title)
def test_tradeoff(benchmark: Any, scanner: Any, frames: Any, sampling: Sampling, device: str) -> None:
    calibration, (rows, truth), counts = scanner[0], frames, COUNTS[device]
    try:
        run, name = pipeline(calibration, sampling, device)
    except DeviceError as error:
        pytest.skip(str(error))
    rows, truth = rows[: counts.frames], truth[: counts.frames]
    found = judge(run, rows, truth, Setup("in").covered())
    assert np.isfinite(found["psnr_db"])
    chosen = {number: getattr(sampling, number) for number in SWEEPS}
    benchmark.extra_info.update(chosen, **found, device=device, runs_on=name)
    turns = iter(range(counts.rounds + counts.warmup))

    def setup() -> tuple[tuple[NDArray[np.complex64]], dict[str, Any]]:
        index = next(turns) % len(rows)
        return (rows[index : index + 1],), {}

    benchmark.pedantic(run, setup=setup, rounds=counts.rounds, warmup_rounds=counts.warmup)
