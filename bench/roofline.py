"""What each stage of a reconstruction should take on a GPU: ``python bench/roofline.py``.

Counts operations and bytes of every stage for the bundled model and prints what four GPUs should take, next to what
`bench/test_kernels.py` measured, where there is such a file. A stage takes its operations over the peak rate or its
bytes over the memory bandwidth, whichever is longer, and for each launch what a node of a CUDA graph costs. No
kernel reaches its peak rate, and tensors that stay in the L2 cache cost less than here: an orientation, not a promise.

    python bench/roofline.py --frames 1 64 --rank 150 --rows 500 --measured bench/results/gpu-*.json

The posterior network's kernels are in roofline_posterior.py.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mpi_fast.bundle import Bundle
from mpi_fast.consensus import STEPS
from mpi_fast.likelihood import CONDITION_CHANNELS
from mpi_fast.samplers import SAMPLERS, nfe
from mpi_fast.training.checkpoint import load_checkpoint

LAUNCH = 1.3e-6  # s per kernel in a CUDA graph on an H100: Hazy Research, "Look Ma, No Bubbles!", 2025
L2_PER_CLOCK = 48  # bytes that one multiprocessor takes in: NVIDIA A100 whitepaper, 5120 from the L2 for 108 of them


@dataclass(frozen=True)
class Gpu:
    """Peak rates of a data sheet, dense, in FLOP/s and bytes/s."""

    name: str
    tensor: float  # float16 in, float32 sums
    single: float
    double: float
    bandwidth: float
    multiprocessors: int
    clock: float
    source: str

    @property
    def model(self) -> str:
        """As the driver's name of the GPU has it."""
        return self.name.removesuffix(" SXM")


GPUS = (
    Gpu("RTX 4090", 165.2e12, 82.6e12, 1.29e12, 1.008e12, 128, 2.52e9, "NVIDIA Ada GPU Architecture v2.02"),
    Gpu("H100 SXM", 989.4e12, 66.9e12, 33.5e12, 3.35e12, 132, 1.83e9, "NVIDIA H100 data sheet and Hopper whitepaper"),
    Gpu("H200 SXM", 989.4e12, 66.9e12, 33.5e12, 4.8e12, 132, 1.83e9, "NVIDIA H200 data sheet"),
    Gpu("B200 SXM", 2250e12, 75e12, 37e12, 7.7e12, 148, 1.86e9, "NVIDIA HGX B200 data sheet, an eighth of it"),
)


@dataclass(frozen=True)
class Stage:
    """One stage, all of its launches together: operations by kind, bytes of memory, and reads of V by a block."""

    name: str
    launches: int
    single: float = 0.0
    tensor: float = 0.0
    double: float = 0.0
    bytes: float = 0.0
    block_bytes: float = 0.0  # that one block takes in from the L2 cache, over all launches

    def seconds(self, gpu: Gpu) -> float:
        """Seconds."""
        work = self.single / gpu.single + self.tensor / gpu.tensor + self.double / gpu.double
        block = self.block_bytes / (L2_PER_CLOCK * gpu.clock)
        return max(work, self.bytes / gpu.bandwidth, block) + self.launches * LAUNCH


@dataclass(frozen=True)
class Size:
    """Of a reconstruction."""

    frames: int
    samples: int
    voxels: int
    rank: int
    rows: int
    evaluations: int  # the start's included
    consensus: int = 0  # evaluations of one image per frame after them


def kernels(size: Size) -> list[Stage]:
    """The four kernels of this project; their head comments do this arithmetic in words."""
    frames, batch, voxels, rank = size.frames, size.frames * size.samples, size.voxels, size.rank
    matrix = 4.0 * voxels * rank
    steps = size.evaluations + 1
    after = size.consensus + 1 if size.consensus else 0
    images = steps * batch + after * frames
    return [
        Stage(
            "reduce",
            1,
            double=4.0 * frames * size.rows * rank,
            bytes=16.0 * size.rows * rank + frames * (8 * size.rows + 8 * rank),
            block_bytes=16.0 * size.rows * min(rank, 8),
        ),
        Stage(
            "prepare",
            1,
            single=4.0 * frames * voxels * rank,
            bytes=matrix + frames * (12.0 * rank + 8 * voxels),
            block_bytes=matrix,
        ),
        Stage(
            "guided_step",
            steps + after,
            single=(8.0 * images + 3.0 * frames * (steps + after)) * voxels * rank,
            bytes=(steps + after) * 2 * matrix + 36.0 * images * voxels,
            block_bytes=(steps + after) * 2 * matrix,
        ),
        # A second one, of the image that is agreed on, costs its launch.
        Stage("finish", 1 + bool(after), single=5.0 * batch * voxels, bytes=4.0 * voxels * (batch + 2 * frames)),
    ]


def network(size: Size, grid: tuple[int, int]) -> list[Stage]:
    """Encoder and denoiser of the bundled model by PyTorch: the launches that it makes, tensors of 16 bits."""
    model = load_checkpoint(Bundle.open().path.parent / "model.pt").network.eval()
    frames, batch = size.frames, size.frames * size.samples
    features = model.config.features
    condition = torch.ones(1, CONDITION_CHANNELS, *grid)
    image, sigma = torch.ones(1, 3, *grid), torch.ones(1)
    denoised = size.evaluations * batch + size.consensus * frames
    denoiser_inputs = image, sigma, torch.ones(1, features, *grid)
    parts = (
        ("encoder", model.encoder, (condition,), frames, 1),
        ("denoiser", model.denoiser, denoiser_inputs, denoised, size.evaluations + size.consensus),
    )
    stages = []
    for name, module, inputs, images, times in parts:  # images of all evaluations, and their number
        flops, moved = count(module, inputs)
        launches = launched(module, inputs)
        weights = sum(parameter.numel() for parameter in module.parameters())
        stages.append(
            Stage(
                name,
                launches * times,
                tensor=flops * images,
                bytes=2.0 * (times * weights + images * moved),
            )
        )
    return stages


class Launches(TorchDispatchMode):
    """Counts what PyTorch does but for views: on a GPU each is a kernel, if not more."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        places = {one.untyped_storage().data_ptr() for one in args if isinstance(one, torch.Tensor)}
        self.count += isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in places
        return made


def launched(module: nn.Module, inputs: tuple[Any, ...]) -> int:
    """Kernels of one evaluation by PyTorch without its compiler."""
    with torch.inference_mode(), Launches() as launches:
        module(*inputs)
    return launches.count


def count(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[int, int]:
    """Operations, and elements that convolutions read and write, for one image."""
    moved = []

    def note(layer: nn.Module, given: tuple[torch.Tensor], made: torch.Tensor) -> None:
        moved.append(given[0].numel() + made.numel())

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(*inputs)
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops(), sum(moved)


def measured(files: list[Path]) -> dict[tuple[str, str, int], float]:
    """Median seconds of one launch by (GPU, stage, frames), from what ``make gpu`` left."""
    found = {}
    for file in files:
        for info in json.loads(file.read_text(encoding="utf-8"))["rows"]:
            if {"gpu", "stage", "frames", "seconds"} <= info.keys():
                found[info["gpu"], info["stage"], int(info["frames"])] = float(info["seconds"])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--rank", type=int, default=150)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--sampler", choices=[*SAMPLERS], default="dpm")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--consensus", type=int, default=STEPS)
    parser.add_argument("--measured", type=Path, nargs="*", default=sorted(Path("bench/results").glob("gpu-*.json")))
    options = parser.parse_args()

    grid = Bundle.open().grid
    evaluations = nfe(options.sampler, options.steps or SAMPLERS[options.sampler].default_steps) + 1
    times = measured(options.measured)
    for gpu in GPUS:
        print(f"{gpu.name}: {gpu.source}")
    for frames in options.frames:
        of_frame = options.samples, grid[0] * grid[1], options.rank, options.rows, evaluations, options.consensus
        size = Size(frames, *of_frame)
        stages = [*kernels(size), *network(size, grid)]
        counts = f"{options.samples} samples, {evaluations} evaluations, {options.consensus} for consensus"
        print(f"\n{frames} frame(s), {counts}: predicted us (measured)")
        print(f"{'stage':<12}{'launches':>9}{'MFLOP':>9}{'MB':>9}" + "".join(f"{gpu.name:>20}" for gpu in GPUS))
        for stage in stages:
            work = (stage.single + stage.tensor + stage.double) / 1e6
            cells = []
            for gpu in GPUS:
                known = [t for (name, *of), t in times.items() if gpu.model in name and of == [stage.name, frames]]
                beside = f" ({1e6 * stage.launches * known[0]:.1f})" if known else ""
                cells.append(f"{1e6 * stage.seconds(gpu):.1f}{beside}")
            print(
                f"{stage.name:<12}{stage.launches:>9}{work:>9.1f}{stage.bytes / 1e6:>9.2f}"
                + "".join(f"{cell:>20}" for cell in cells)
            )
        totals = [sum(stage.seconds(gpu) for stage in stages) for gpu in GPUS]
        print(f"{'a frame, us':<39}" + "".join(f"{1e6 * total / frames:>20.1f}" for total in totals))
        print(f"{'frames/s':<39}" + "".join(f"{frames / total:>20.0f}" for total in totals))


if __name__ == "__main__":
    main()
