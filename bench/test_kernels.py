"""Time of each kernel of a frame on this GPU, compared with the prediction of `roofline`: ``make gpu``.

A round is one launch of a CUDA graph that contains the kernel many times, so that the kernel is measured without
Python. Its input stays in the L2 cache, as in a frame.
"""

from typing import Any

import numpy as np
import pytest
from roofline import GPUS, predict

from mpi_fast.bundle import PLANE, Bundle
from mpi_fast.engines.initializers import network_parameters
from mpi_fast.errors import MPIFastError
from mpi_fast.grids import shown
from mpi_fast.kernels.capture import Recorded
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.weights import Weights
from mpi_fast.limits import EVALUATIONS

REPEAT = 100
STAGES = "reduce", "prepare", "plan", "project", "fine", "coarse", "refine", "image"
OF_VOLUMES = "white", "plan", "variances", "current", "residual", "changes", "fine", "coarse", "image", "tails"
pytestmark = pytest.mark.gpu


class Remembering(CupyDevice):
    """A device that records the last launch of each kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: dict[str, tuple[Any, ...]] = {}

    def launch(self, kernel: Any, *how: Any) -> None:
        """See `CupyDevice`."""
        self.launches[kernel.name] = kernel, *how
        super().launch(kernel, *how)


@pytest.fixture(scope="module")
def device() -> Remembering:
    try:
        return Remembering()
    except MPIFastError as error:
        pytest.skip(str(error))


@pytest.mark.benchmark(group="kernels: 100 launches in a graph")
@pytest.mark.parametrize("frames", [1, 8, 64])
@pytest.mark.parametrize("stage", STAGES)
def test_kernel(benchmark: Any, device: Remembering, measured: Any, stage: str, frames: int) -> None:
    measure(benchmark, device, measured, stage, frames)


@pytest.mark.benchmark(group="kernels of a volume, 19 x 19 x 19 voxels, rank 1000: 100 launches in a graph")
@pytest.mark.parametrize("stage", OF_VOLUMES)
def test_kernel_of_a_volume(benchmark: Any, device: Remembering, volume: Any, stage: str) -> None:
    measure(benchmark, device, volume, stage, 1)


def measure(benchmark: Any, device: Remembering, measured: Any, stage: str, frames: int) -> None:
    """Time one kernel of the frames' loop."""
    calibration, rows = measured
    weights = Weights.upload(network_parameters(Bundle.open().read(PLANE), PLANE), device)
    loop = PosteriorLoop(device, calibration, weights, frames, evaluations=EVALUATIONS)
    device.copy(np.ascontiguousarray(rows[:frames], np.complex64), loop.signals)
    loop()
    if stage not in device.launches:
        pytest.skip(f"the bundled network launches no {stage}")
    launch = device.launches[stage]

    def work() -> None:
        for _ in range(REPEAT):
            device.launch(*launch)

    recorded = Recorded(device, work)
    assert recorded.state.nodes == REPEAT, recorded.state

    def run() -> None:
        recorded()
        device.wait()

    benchmark.pedantic(run, rounds=50, warmup_rounds=5)
    seconds = benchmark.stats.stats.median / REPEAT
    grid = shown(calibration.grid)
    benchmark.extra_info.update(gpu=device.name, stage=stage, grid=grid, frames=frames, seconds=seconds)
    for gpu in GPUS:
        if gpu.model in device.name:
            launches, expected = predict(gpu, calibration, weights, frames)[stage]
            benchmark.extra_info["times_predicted"] = seconds * launches / expected
