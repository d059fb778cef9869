"""Each kernel on this GPU against what its operations and bytes predict: ``make gpu``.

A round is one launch of a CUDA graph that holds the kernel many times over, so that what is measured is the kernel and
its place in a graph, not Python. V and the state stay in the L2 cache, as they do in a reconstruction.
"""

from typing import Any

import numpy as np
import pytest
from mpi_fast.kernels.finish import finish
from mpi_fast.kernels.guided_step import State, guided_step
from mpi_fast.kernels.table import STEP, step_table
from roofline import GPUS, Size, kernels

from mpi_fast.calibration import Calibration
from mpi_fast.errors import MPIFastError
from mpi_fast.kernels.capture import Recorded
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.prepare import STATISTICS, Basis, prepare
from mpi_fast.kernels.reduce import Projection, reduce
from mpi_fast.likelihood import CONDITION_CHANNELS
from mpi_fast.pipelines import Sampling
from mpi_fast.schedule import VE

REPEAT = 100
SAMPLES = Sampling().samples
pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def device() -> CupyDevice:
    try:
        return CupyDevice()
    except MPIFastError as error:
        pytest.skip(str(error))


class Buffers:
    """All arrays of a reconstruction, and its launches by name."""

    def __init__(self, device: CupyDevice, calibration: Calibration, frames: int) -> None:
        rng = np.random.default_rng(0)
        voxels, rank, batch = calibration.num_voxels, calibration.rank, frames * SAMPLES
        normal = rng.standard_normal((frames, calibration.num_rows, 2)).astype(np.float32)
        signals = device.upload(normal.view(np.complex64)[..., 0])
        projection, basis = Projection.upload(calibration, device), Basis.upload(calibration, device)
        table = step_table("dpm", VE(), Sampling().steps)
        rows = device.upload(table.view(np.uint8).reshape(len(table), STEP.itemsize))
        reduced, energy = device.empty((frames, rank), np.float64), device.empty((frames,), np.float64)
        y, statistics = (device.empty(shape, np.float32) for shape in ((frames, rank), (len(STATISTICS), frames)))
        condition = device.empty((frames, CONDITION_CHANNELS, voxels), np.float32)
        x, saved, denoised = (
            device.upload(rng.standard_normal((frames, SAMPLES, voxels)).astype(np.float32)) for _ in range(3)
        )
        state = State(x, saved, device.empty((batch, 3, voxels), np.float32), device.empty((batch,), np.float32))
        image, deviation = (device.empty((frames, voxels), np.float32) for _ in range(2))
        self.launches = {
            "reduce": lambda: reduce(device, projection, signals, reduced, energy),
            "prepare": lambda: prepare(device, basis, reduced, energy, y, statistics, condition),
            "guided_step": lambda: guided_step(
                device, basis, rows, 3, 0, y, statistics[0], denoised.reshape(batch, voxels), state
            ),
            "finish": lambda: finish(device, x, statistics, image=image, deviation=deviation),
        }


@pytest.mark.benchmark(group="kernels: 100 launches in a graph")
@pytest.mark.parametrize("frames", [1, 8, 64])
@pytest.mark.parametrize("stage", ["reduce", "prepare", "guided_step", "finish"])
def test_kernel(benchmark: Any, device: CupyDevice, measured: Any, stage: str, frames: int) -> None:
    import cupy

    calibration = measured[0]
    launches = Buffers(device, calibration, frames).launches
    for launch in launches.values():  # loads all kernels, and fills what this one reads
        launch()

    def work() -> None:
        for _ in range(REPEAT):
            launches[stage]()

    recorded = Recorded(device, work, device)
    assert recorded.state.nodes == REPEAT, recorded.state

    def run() -> None:
        recorded()
        device.wait()

    benchmark.pedantic(run, rounds=50, warmup_rounds=5)
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"].decode()
    seconds = benchmark.stats.stats.median / REPEAT
    benchmark.extra_info.update(gpu=name, stage=stage, frames=frames, seconds=seconds)
    size = Size(frames, SAMPLES, calibration.num_voxels, calibration.rank, calibration.num_rows, 1)
    expected = next(part for part in kernels(size) if part.name == stage)
    for gpu in GPUS:
        if gpu.model in name:
            benchmark.extra_info["times_predicted"] = seconds * expected.launches / expected.seconds(gpu)
