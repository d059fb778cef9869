"""The training loop: any of `recipes` for a given number of minutes, on any device, resumable.

Writes two files: ``model.pt`` (a plain dict of tensors, numbers and strings: the network that people deploy) and
``model.pt.resume`` (optimiser and raw weights, to go on from). Both are replaced when whole, never half-written.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import mpi_fast
from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError, ModelError
from mpi_fast.machine import processor
from mpi_fast.training.checkpoint import FORMAT
from mpi_fast.training.data import SIGMA, training_phantoms
from mpi_fast.training.deq import DeqConfig
from mpi_fast.training.dernet import DernetConfig
from mpi_fast.training.mixed import has_bfloat16
from mpi_fast.training.network import NetworkConfig
from mpi_fast.training.recipes import RECIPES, method_of
from mpi_fast.training.scanners import make_scanners


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a training run computes; the checkpoint records it.

    Attributes
    ----------
    minutes : float
        Wall-clock time of training, all resumed runs together.
    grid : (ny, nx)
        Image size.
    scanners, phantoms : int
        How many random scanners and phantoms to draw samples from.
    groups, frames : int
        A batch is ``frames`` frames of each of ``groups`` scanners; of frames by default as many as in the recipe.
    learning_rate : float
        Highest one, by default the recipe's; cosine decay over the given minutes, after 1 % of linear warm-up.
    ema : float
        Decay per step of the moving average of the weights.
    seed : int
        For scanners, phantoms, batches and initial weights.
    network : NetworkConfig, DernetConfig or DeqConfig
        What to train.
    """

    minutes: float = 60.0
    grid: tuple[int, int] = (19, 19)
    scanners: int = 256
    phantoms: int = 60_000
    groups: int = 8
    frames: int | None = None
    learning_rate: float | None = None
    ema: float = 0.9995
    seed: int = 0
    network: NetworkConfig | DernetConfig | DeqConfig = field(default_factory=NetworkConfig)

    def chosen(self) -> tuple[int, float]:
        """Frames and learning rate, the recipe's own where none are given."""
        recipe = RECIPES[method_of(self.network)]
        frames = recipe.frames if self.frames is None else self.frames
        return frames, recipe.learning_rate if self.learning_rate is None else self.learning_rate


@dataclass(frozen=True)
class Progress:
    """State of a run, for a progress bar: step, seconds trained so far, smoothed loss, learning rate."""

    step: int
    seconds: float
    loss: float
    learning_rate: float


def learning_rate(highest: float, progress: float) -> float:
    """Learning rate after a fraction ``progress`` of the run."""
    warm = min(1.0, progress / 0.01 + 1e-2)
    return highest * warm * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * min(progress, 1.0)))))


def train(
    config: TrainingConfig,
    output: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    save_every: float = 120.0,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train a network.

    Parameters
    ----------
    config : TrainingConfig
        What to compute.
    output : Path
        ``model.pt`` to write; ``output + ".resume"`` stands beside it.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    resume : bool
        Go on from ``output + ".resume"``.
    save_every : float
        Seconds between checkpoints.
    report : callable
        Called about once a second with the progress.

    Returns
    -------
    Path of the checkpoint.

    Raises
    ------
    InputError
        For a device that is not there.
    ModelError
        When resuming from nothing, or from a run with another network or grid.
    """
    target = _device(device)
    torch.manual_seed(config.seed)
    recipe = RECIPES[method_of(config.network)]
    frames, highest = config.chosen()
    network = recipe.build(config.network, config.grid)
    network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = {name: value.detach().clone().float() for name, value in network.state_dict().items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=highest, betas=(0.9, 0.99), weight_decay=1e-3)
    step, spent, computed = 0, 0.0, 0.0
    resume_file = output.with_name(output.name + ".resume")
    if resume:
        step, spent, computed = _restore(resume_file, config, network, average, optimiser, target)
    scanners = make_scanners(config.scanners, config.seed, config.grid).to(target)
    phantoms = training_phantoms(config.phantoms, config.seed, config.grid).to(target)
    data = recipe.batches(scanners, phantoms, config.groups, frames, seed=config.seed + 1_000_003 * (step + 1))

    smooth, began, saved, told = 0.0, time.monotonic() - spent, time.monotonic(), 0.0
    computing = time.process_time() - computed
    while (seconds := time.monotonic() - began) < 60 * config.minutes:
        rate = learning_rate(highest, seconds / (60 * config.minutes))
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = recipe.loss(network, next(data))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        step += 1
        _update_average(average, network, min(config.ema, 1 - 1 / (step + 1)))
        now = time.monotonic()
        if now - told > 1.0:
            told = now
            smooth = float(loss.detach()) if smooth == 0 else 0.98 * smooth + 0.02 * float(loss.detach())
            report(Progress(step, seconds, smooth, rate))
        if now - saved > save_every:
            saved = now
            used = seconds, time.process_time() - computing
            _save(output, resume_file, config, network, average, optimiser, step, used)
    seconds = time.monotonic() - began
    used = seconds, time.process_time() - computing
    _save(output, resume_file, config, network, average, optimiser, step, used)
    report(Progress(step, seconds, smooth, 0.0))
    return output


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device '{name}': torch sees no CUDA device; use --device cpu")
    try:
        return torch.device(name)
    except RuntimeError:
        raise InputError(f"device '{name}': expected auto, cpu, cuda or cuda:N") from None


@torch.no_grad()
def _update_average(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    values = network.state_dict()
    torch._foreach_lerp_(list(average.values()), [values[name].float() for name in average], 1 - decay)


def _provenance(config: TrainingConfig, step: int, used: tuple[float, float], device: torch.device) -> dict[str, Any]:
    """Who made this network, from what, where: plain strings and numbers."""
    frames, highest = config.chosen()
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "package": f"mpi-fast {mpi_fast.__version__}",
        "torch": str(torch.__version__),
        "hardware": f"{hardware}, {torch.get_num_threads()} threads",
        "precision": "bfloat16" if has_bfloat16(device.type) else "float32",
        "command": command(config),
        "seed": config.seed,
        "steps": step,
        "frames": step * config.groups * frames,
        "minutes": round(used[0] / 60, 2),
        "cpu_minutes": round(used[1] / 60, 2),
        "scanners": config.scanners,
        "phantoms": config.phantoms,
        "learning_rate": highest,
    }


def command(config: TrainingConfig) -> str:
    """The command line that trains alike.

    It has no options for batches, the moving average and the size of a network. Where these are others than by default,
    the configuration itself, as Python writes it.
    """
    method, default = method_of(config.network), TrainingConfig(network=type(config.network)())
    (frames, rate), (own_frames, own_rate) = config.chosen(), default.chosen()
    own = default.groups, own_frames, default.ema, default.network
    if (config.groups, frames, config.ema, config.network) != own:
        return f"mpi_fast.training.loop.train({config})"
    options = {  # and what they are unless told otherwise
        "method": (method, "score"),
        "minutes": (f"{config.minutes:g}", None),
        "seed": (config.seed, None),
        "grid": ("x".join(map(str, config.grid)), "x".join(map(str, default.grid))),
        "scanners": (config.scanners, default.scanners),
        "phantoms": (config.phantoms, default.phantoms),
        "learning-rate": (rate, own_rate),
    }
    chosen = (f"--{name} {value}" for name, (value, unless) in options.items() if value != unless)
    return " ".join(["mpi-fast train", *chosen])


def _save(
    output: Path,
    resume_file: Path,
    config: TrainingConfig,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    step: int,
    used: tuple[float, float],
) -> None:
    """Write both files; ``used`` are the seconds by the clock and of the processor."""
    device = next(network.parameters()).device
    model = {
        "format": FORMAT,
        "method": method_of(config.network),
        "grid": list(config.grid),
        "network": config.network.to_dict(),
        "sigma_range": list(SIGMA),
        "state": {name: value.cpu().contiguous() for name, value in average.items()},
        "provenance": _provenance(config, step, used, device),
    }
    state = {
        "network": network.state_dict(),
        "average": average,
        "optimiser": optimiser.state_dict(),
        "step": step,
        "seconds": used[0],
        "cpu_seconds": used[1],
        "identity": _identity(config),
    }
    for path, content in ((output, model), (resume_file, state)):
        with atomic_path(path) as temporary:
            torch.save(content, temporary)


def _identity(config: TrainingConfig) -> dict[str, Any]:
    """What a resumed run must share with the one it goes on from."""
    return {
        "network": config.network.to_dict(),
        "grid": list(config.grid),
        "seed": config.seed,
        "scanners": config.scanners,
        "phantoms": config.phantoms,
    }


def _restore(
    file: Path,
    config: TrainingConfig,
    network: nn.Module,
    average: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    device: torch.device,
) -> tuple[int, float, float]:
    """Steps so far, and the seconds by the clock and of the processor that they took."""
    if not file.is_file():
        raise ModelError(f"{file}: nothing to resume from; train without --resume first")
    try:
        state = torch.load(file, map_location=device, weights_only=True)
        identity = state["identity"]
    except Exception as error:
        raise ModelError(f"{file}: not a file to resume from ({type(error).__name__})") from error
    if identity != _identity(config):
        raise ModelError(f"{file}: made with {identity}, expected {_identity(config)}")
    try:
        network.load_state_dict(state["network"])
        average.update(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        return int(state["step"]), float(state["seconds"]), float(state["cpu_seconds"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{file}: incomplete: {str(error).splitlines()[0]}") from error
