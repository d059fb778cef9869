"""Prediction of the time of a frame on a GPU: ``python bench/roofline.py``.

A device that only counts records the launches of the loop that is actually built. Each launch takes at least the time
of a node of a CUDA graph. Its thread blocks run in rounds, with one block on each multiprocessor at a time. A block
takes the longer of two times: its operations, at the multiprocessor's share of the peak rate, and its reads from the L2
cache. A matrix larger than half of this cache, as in volumes, is read from the GPU's memory at its peak rate. Only the
shares `TENSOR` and `SINGLE` of the other peak rates are assumed, because the kernels' products are short.

The output also shows the times measured by `test_kernels.py`, if there is such a file, and the least time of the same
network in PyTorch, which launches every operation separately.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from volume_frame import PERIOD_MS

from mpi_fast.calibration import Calibration
from mpi_fast.cli.options import parse_grid
from mpi_fast.grids import is_plane, shown
from mpi_fast.kernels.combine_volumes import GROUP
from mpi_fast.kernels.launch import Kernel
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.tiles import coarse_steps, fine_steps
from mpi_fast.kernels.weights import Weights
from mpi_fast.limits import EVALUATIONS
from mpi_fast.training.combination import Signals
from mpi_fast.training.network import PosteriorConfig, PosteriorNetwork

TENSOR, SINGLE = 0.25, 0.5  # assumed shares of the peak rates, of tensor cores and of float32 (and float64)
SUMS = {"white": (5, 5), "variances": (0, GROUP), "changes": (2, 0)}  # of V, and of its squares
STEP = 2 * 16 * 8 * 16  # operations of one product by a warp
LAUNCH = 1.3e-6  # s per kernel in a CUDA graph on an H100: Hazy Research, "Look Ma, No Bubbles!", 2025
PLANE_PERIOD_MS = 0.653  # of the scanner, where only two of its fields are driven
L2_PER_CLOCK = 48  # bytes that one multiprocessor takes in: NVIDIA A100 whitepaper, 5120 from the L2 for 108 of them


@dataclass(frozen=True)
class Gpu:
    """Peak rates of a data sheet, dense, in FLOP/s; memory in B/s, and the L2 cache in bytes."""

    name: str
    tensor: float  # float16 in, float32 sums
    single: float
    double: float
    multiprocessors: int
    clock: float
    memory: float
    cache: float
    source: str

    @property
    def model(self) -> str:
        """The part of the name that the driver's name of the GPU contains."""
        return self.name.removesuffix(" SXM")


GPUS = (
    Gpu("RTX 4090", 165.2e12, 82.6e12, 1.29e12, 128, 2.52e9, 1.008e12, 72e6, "NVIDIA Ada GPU Architecture v2.02"),
    Gpu(
        "H100 SXM", 989.4e12, 66.9e12, 33.5e12, 132, 1.83e9, 3.35e12, 50e6, "NVIDIA H100 data sheet, Hopper whitepaper"
    ),
    Gpu("H200 SXM", 989.4e12, 66.9e12, 33.5e12, 132, 1.83e9, 4.8e12, 50e6, "NVIDIA H200 data sheet"),
    Gpu("B200 SXM", 2250e12, 75e12, 37e12, 148, 1.86e9, 7.7e12, 126e6, "NVIDIA HGX B200 data sheet, an eighth of it"),
)


class Counting:
    """Records launches without running them, see `kernels.launch.Device`."""

    name, stream_address, shared_limit = "a count", 0, 96 << 10

    def __init__(self, multiprocessors: int) -> None:
        self.multiprocessors = multiprocessors
        self.launches: list[tuple[Kernel, tuple[int, int]]] = []

    def upload(self, array: Any) -> Any:
        """An array in host memory."""
        return np.asarray(array)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array in host memory."""
        return np.zeros(shape, dtype)

    def launch(
        self, kernel: Kernel, grid: tuple[int, int], threads: int, shared: int, arguments: Sequence[Any]
    ) -> None:
        """Record a launch."""
        self.launches.append((kernel, grid))


@dataclass(frozen=True)
class Work:
    """The work of one thread block: operations by kind, and bytes from the L2 cache."""

    tensor: float = 0.0
    single: float = 0.0
    double: float = 0.0
    bytes: float = 0.0

    def seconds(self, gpu: Gpu) -> float:
        """The least time of this work on one multiprocessor."""
        compute = self.tensor / (TENSOR * gpu.tensor) + self.single / (SINGLE * gpu.single)
        compute += self.double / (SINGLE * gpu.double)
        return max(compute * gpu.multiprocessors, self.bytes / (L2_PER_CLOCK * gpu.clock))


def work(kernel: Kernel, calibration: Calibration) -> Work:
    """The work of a thread block of a kernel, as explained in the header of its source."""
    voxels, rank, rows, planar = (*_sizes(calibration), is_plane(calibration.grid))
    defines = dict(kernel.defines)
    slice_ = voxels if planar else voxels // calibration.grid[0]  # as if all slices had the same size
    basis, side, together = 4.0 * voxels * rank, int(defines.get("TILE", 0)), int(defines.get("FRAMES", 1))
    if kernel.name == "reduce":
        return Work(double=4.0 * 4 * 8 * rows, bytes=16.0 * rows * 8 + 4 * 8 * rows)
    if kernel.name == "prepare":
        if not planar:
            return Work(single=40.0 * rank, bytes=52.0 * rank)
        return Work(single=2.0 * 10 * voxels * rank, bytes=basis)
    if kernel.name == "plan":
        embedding = 4 * 64 * (64 + 100)
        if not planar:
            return Work(single=5 * 20.0 * voxels, bytes=5 * 4.0 * voxels + embedding)
        return Work(single=3.0 * voxels * rank, bytes=basis + embedding)
    if kernel.name == "residual":
        return Work(single=8 * 2.0 * voxels * together, bytes=(8 + together) * 4.0 * voxels)
    if kernel.name in SUMS:  # of 32 voxels
        linear, squares = SUMS[kernel.name]
        count = (linear + squares) * together
        return Work(single=32.0 * rank * (2 * count + (squares > 0)), bytes=4.0 * rank * (32 + count))
    if kernel.name == "tails":
        return Work(single=voxels / 8, bytes=voxels / 2)
    if kernel.name == "project":
        return Work(single=16.0 * voxels + 300 * voxels, bytes=32 * voxels + 72 * voxels)
    if kernel.name == "fine":
        pixels, halo = min((side + 6) ** 2, slice_), min((side + 4) ** 2, slice_)
        columns = (
            rank if planar else 6
        )  # columns read: of V, or mean, deviation and changes, of whose cache lines half is used
        return Work(
            tensor=fine_steps(side) * STEP,
            single=4.0 * pixels * columns,
            bytes=14e3 + 4.0 * pixels * columns + 64 * halo + 128 * side**2,
        )
    if kernel.name == "coarse":
        halo = min((2 * side + 9) ** 2, slice_)
        return Work(tensor=coarse_steps(side) * STEP, bytes=50e3 + 64 * halo + 192 * (2 * side) ** 2)
    if kernel.name == "refine":
        return Work(single=3.0 * voxels, bytes=12.0 * voxels)
    heads = 1 if kernel.name == "current" else 2
    return Work(single=128 * heads * 300, bytes=128 * 9 * 64)  # image


def streamed(kernel: Kernel, groups: int, calibration: Calibration, gpu: Gpu) -> float:
    """Bytes that a launch reads from memory: a matrix too large for the cache, once for each group of frames."""
    voxels, rank, rows = _sizes(calibration)
    matrix = 16.0 * rows * rank if kernel.name == "reduce" else 4.0 * voxels * rank
    reads = kernel.name in ("reduce", "residual", *SUMS) and matrix > gpu.cache / 2
    return groups * matrix if reads else 0.0


def _sizes(calibration: Calibration) -> tuple[int, int, int]:
    """Numbers of voxels, singular values and rows: N, R, M."""
    return calibration.num_voxels, calibration.rank, calibration.num_rows


def predict(
    gpu: Gpu, calibration: Calibration, weights: Weights, frames: int, evaluations: int = EVALUATIONS
) -> dict[str, tuple[int, float]]:
    """Launches and seconds by kernel; ``copy`` stands for copies between host and device."""
    device = Counting(gpu.multiprocessors)
    loop = PosteriorLoop(device, calibration, weights, frames, evaluations=evaluations)  # type: ignore[arg-type]
    loop()
    found: dict[str, tuple[int, float]] = {"copy": (1 + len(loop.outputs), (1 + len(loop.outputs)) * LAUNCH)}
    for (kernel, (x, y)), times in Counter(device.launches).items():
        rounds = -(-x * y // gpu.multiprocessors) * work(kernel, calibration).seconds(gpu)
        seconds = LAUNCH + max(rounds, streamed(kernel, y, calibration, gpu) / gpu.memory)
        count, total = found.get(kernel.name, (0, 0.0))
        found[kernel.name] = count + times, total + times * seconds
    return found


def scanner(grid: tuple[int, ...], rank: int, rows: int) -> Calibration:
    """A calibration of these sizes; its numbers do not matter and take no memory."""
    voxels = prod(grid)
    return Calibration(
        grid=grid,
        field_of_view=(1.0,) * len(grid),
        selection=np.ones((1, rows), dtype=bool),
        frequencies=np.arange(rows, dtype=np.float64),
        matrix=np.broadcast_to(np.complex64(0), (rows, voxels)),
        weights=np.ones(rows),
        singular_values=np.ones(rank, np.float32),
        basis=np.broadcast_to(np.float32(1), (voxels, rank)),
        projection=np.broadcast_to(np.complex128(1), (rank, rows)),
    )


class Launches(TorchDispatchMode):
    """Counts the operations of PyTorch except views; on a GPU each is at least one kernel."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        places = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        self.count += isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in places
        return made


def launches_of_torch(network: PosteriorNetwork, calibration: Calibration) -> int:
    """Number of kernels of one evaluation in PyTorch."""
    given = np.ones((1, 1, calibration.rank), np.float32), np.ones((1, 1), np.float32)
    scanner = calibration.singular_values[None], calibration.basis[None]
    signals = Signals.of(*(torch.from_numpy(np.array(one)) for one in (*given, *scanner)))
    with torch.inference_mode(), Launches() as launches:
        network(signals, (*(1,) * (3 - len(calibration.grid)), *calibration.grid))
    return launches.count


def measured(files: list[Path]) -> dict[tuple[str, str, str, int], float]:
    """Median seconds of one launch by (GPU, grid, stage, frames), from the files of ``make gpu``."""
    found = {}
    for file in files:
        for info in json.loads(file.read_text(encoding="utf-8"))["rows"]:
            if {"gpu", "grid", "stage", "frames", "seconds"} <= info.keys():
                found[info["gpu"], info["grid"], info["stage"], int(info["frames"])] = float(info["seconds"])
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 64, 512])
    parser.add_argument("--grid", default="19x19")
    parser.add_argument("--rank", type=int, default=150)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS)
    parser.add_argument("--blocks", type=int, default=PosteriorConfig().blocks)
    parser.add_argument("--coarse-every", type=int, default=PosteriorConfig().coarse_every)
    parser.add_argument("--measured", type=Path, nargs="*", default=sorted(Path("bench/results").glob("gpu-*.json")))
    options = parser.parse_args()
    network = PosteriorNetwork(PosteriorConfig(options.blocks, coarse_every=options.coarse_every)).eval()
    calibration = scanner(parse_grid(options.grid), options.rank, options.rows)
    parameters = {name: value.numpy() for name, value in network.state_dict().items()}
    weights = Weights.upload(parameters, SimpleNamespace(upload=np.asarray))  # type: ignore[arg-type]
    times = measured(options.measured)
    for gpu in GPUS:
        print(f"{gpu.name}: {gpu.source}")
    for frames in options.frames:
        found = [predict(gpu, calibration, weights, frames, options.evaluations) for gpu in GPUS]
        nodes = sum(count for count, _ in found[0].values())
        size = f"{shown(calibration.grid)} voxels, rank {options.rank}, {options.evaluations} evaluations"
        print(f"\n{frames} frames of {size}: {nodes} nodes")
        print(f"{'predicted, us':<14}{'nodes':>7}" + "".join(f"{gpu.name:>20}" for gpu in GPUS))
        for name, (count, _) in found[0].items():
            cells = []
            for gpu, one in zip(GPUS, found, strict=True):
                this = [shown(calibration.grid), name, frames]
                known = [time for (card, *of), time in times.items() if gpu.model in card and of == this]
                beside = f" ({1e6 * count * known[0]:.1f})" if known else ""
                cells.append(f"{1e6 * one[name][1]:.1f}{beside}")
            print(f"{name:<14}{count:>7}" + "".join(f"{cell:>20}" for cell in cells))
        totals = [sum(seconds for _, seconds in one.values()) for one in found]
        print(f"{'together':<14}{nodes:>7}" + "".join(f"{1e6 * total:>20.1f}" for total in totals))
        print(f"{'frames/s':<21}" + "".join(f"{frames / total:>20.0f}" for total in totals))
    period = PLANE_PERIOD_MS if is_plane(calibration.grid) else PERIOD_MS
    print(f"\nThe scanner's own period is {period} ms. All times above are predictions.")
    launches = options.evaluations * launches_of_torch(network, calibration)
    print(f"PyTorch launches {launches} kernels a frame: {1e6 * launches * LAUNCH:.0f} us at least, in a graph")


if __name__ == "__main__":
    main()
