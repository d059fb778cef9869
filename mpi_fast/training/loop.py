"""The training loop: trains any of `recipes` for a given number of minutes, on any device, and can be resumed.

Writes two files: ``model.pt`` (a plain dict of tensors, numbers and strings: the network to deploy) and
``model.pt.resume`` (optimiser and raw weights, to continue). Both are replaced only by complete files.
"""

import io
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import mpi_fast
from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError, ModelError
from mpi_fast.machine import processor
from mpi_fast.training.archive import LARGEST_FILE, read_archive
from mpi_fast.training.checkpoint import FORMAT, load_trained
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.mixed import has_bfloat16
from mpi_fast.training.mixture import SIGMA
from mpi_fast.training.recipes import RECIPES, method_of

REFERENCE = 1000  # steps of an open-ended run at the largest learning rate
MEMORY = 7  # power of the average: weights of step t count as t^7, so the last tenth of the run dominates
BEFORE = 0.3  # share of the average before the finish in the final weights; 0.05 dB better than either alone


@dataclass(frozen=True)
class Progress:
    """State of a run, for a progress bar: step, seconds trained so far, smoothed loss, learning rate."""

    step: int
    seconds: float
    loss: float
    learning_rate: float


class Done(NamedTuple):
    """Progress of a run: steps, frames, wall-clock and processor seconds."""

    step: int
    frames: int
    seconds: float
    cpu_seconds: float


def learning_rate(highest: float, progress: float) -> float:
    """Learning rate after a fraction ``progress`` of a run of given length: cosine decay after 1 % of warm-up."""
    warm = min(1.0, progress / 0.01 + 1e-2)
    return highest * warm * 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * min(progress, 1.0)))))


def open_ended_rate(highest: float, step: int, resumed: int) -> float:
    """Learning rate at a step of an open-ended run: inverse square root decay, with 100 steps of warm-up.

    ``resumed`` steps were taken since the run was started or resumed.
    """
    return highest * min(1.0, (resumed + 1) / 100) / sqrt(max(1.0, step / REFERENCE))


def train(
    config: TrainingConfig,
    output: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    batches: Iterator[Any] | None = None,
    save_every: float = 120.0,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Path:
    """Train a network.

    Parameters
    ----------
    config : TrainingConfig
        Parameters of the run.
    output : Path
        ``model.pt`` to write; ``output + ".resume"`` is written beside it.
    device : str
        ``auto``, ``cpu`` or ``cuda``.
    resume : bool
        Continue from ``output + ".resume"`` or, if it is missing, from ``output``: the averaged weights, with new
        optimisers.
    batches : iterator, optional
        Training batches, instead of those of the configuration.
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
        For a device that does not exist.
    ModelError
        If there is no run to resume, or if it has another network or grid.
    """
    target = _device(device)
    torch.manual_seed(config.seed)
    recipe = RECIPES[method_of(config.network)]
    complete = recipe.complete(config)
    assert complete.learning_rate is not None
    highest = complete.learning_rate
    network = recipe.build(config.network, config.grid)
    network.to(target, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = {name: value.detach().clone().float() for name, value in network.state_dict().items()}
    optimisers = recipe.optimisers(network, 1.0)  # each with its own share of the learning rate
    shares = [group["lr"] for optimiser in optimisers for group in optimiser.param_groups]
    resume_file = output.with_name(output.name + ".resume")
    done = _restore(output, resume_file, config, network, average, optimisers, target) if resume else Done(0, 0, 0, 0)
    step, frames, spent, computed = first, *_ = done
    data = batches or recipe.data(complete, target, config.seed + 1_000_003 * (step + 1))

    smooth, began, saved, reported = 0.0, time.monotonic() - spent, time.monotonic(), 0.0
    before: dict[str, Tensor] | None = None
    finishing = 0  # steps in the last minutes of an open-ended run, if it is to be finished
    computing = time.process_time() - computed
    while (seconds := time.monotonic() - began) < 60 * config.minutes:
        remaining = 1 - seconds / (60 * config.minutes)
        if recipe.open_ended:
            rate = open_ended_rate(highest, step, step - first)
            if remaining * config.minutes < config.finish:
                if before is None:
                    before = {name: value.clone() for name, value in average.items()}
                rate *= remaining * config.minutes / config.finish
                finishing += 1
        else:
            rate = learning_rate(highest, 1 - remaining)
        groups = (group for optimiser in optimisers for group in optimiser.param_groups)
        for group, share in zip(groups, shares, strict=True):
            group["lr"] = share * rate
        batch = next(data)
        loss = recipe.loss(network, batch)
        network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        steepness = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if torch.isfinite(steepness):  # a step along NaN would end the run
            for optimiser in optimisers:
                optimiser.step()
        step, frames = step + 1, frames + batch.frames
        # The decay of the power law in long runs; at the beginning the mean of all weights so far.
        taken = finishing or step
        decay = (1 - 1 / (taken + 1)) ** (MEMORY + 1) if recipe.open_ended else min(config.ema, 1 - 1 / (step + 1))
        _update_average(average, network, decay)
        now = time.monotonic()
        if now - reported > 1.0:
            reported = now
            smooth = float(loss.detach()) if smooth == 0 else 0.98 * smooth + 0.02 * float(loss.detach())
            report(Progress(step, seconds, smooth, rate))
        if now - saved > save_every:
            saved = now
            done = Done(step, frames, seconds, time.process_time() - computing)
            _save(output, None if finishing else resume_file, config, network, _kept(average, before), optimisers, done)
    seconds = time.monotonic() - began
    done = Done(step, frames, seconds, time.process_time() - computing)
    _save(output, None if finishing else resume_file, config, network, _kept(average, before), optimisers, done)
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


def _kept(average: dict[str, Tensor], before: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """The weights to deploy: the average, and in the finish a share of the average before it."""
    if before is None:
        return average
    return {name: torch.lerp(value, before[name], BEFORE) for name, value in average.items()}


def _provenance(config: TrainingConfig, done: Done, device: torch.device) -> dict[str, Any]:
    """How this network was made: plain strings and numbers."""
    recipe = RECIPES[method_of(config.network)]
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "package": f"mpi-fast {mpi_fast.__version__}",
        "torch": str(torch.__version__),
        "hardware": f"{hardware}, {torch.get_num_threads()} threads",
        "precision": "bfloat16" if has_bfloat16(device.type) else "float32",
        "command": command(config),
        "seed": config.seed,
        "steps": done.step,
        "frames": done.frames,
        "minutes": round(done.seconds / 60, 2),
        "cpu_minutes": round(done.cpu_seconds / 60, 2),
        **(asdict(config.mixture) if recipe.open_ended else {"scanners": config.scanners, "phantoms": config.phantoms}),
        "learning_rate": recipe.complete(config).learning_rate,
        **({"before_finish": BEFORE} if config.finish else {}),
    }


def command(config: TrainingConfig) -> str:
    """The command line of an equal training.

    There are no options for batches, the moving average and the size of a network. If these differ from the defaults,
    this is the configuration as Python prints it.
    """
    method = method_of(config.network)
    recipe = RECIPES[method]
    complete, default = recipe.complete(config), recipe.complete(TrainingConfig(network=type(config.network)()))
    without_option = "groups", "frames", "ema", "mixture", "network"
    if any(getattr(complete, name) != getattr(default, name) for name in without_option):
        return f"mpi_fast.training.loop.train({config})"
    options = {  # options and their defaults
        "method": (method, method_of(TrainingConfig().network)),
        "minutes": (f"{config.minutes:g}", None),
        "finish": (f"{config.finish:g}", "0"),
        "seed": (config.seed, None),
        "grid": ("x".join(map(str, config.grid)), "x".join(map(str, default.grid))),
        "scanners": (config.scanners, default.scanners),
        "phantoms": (config.phantoms, default.phantoms),
        "learning-rate": (complete.learning_rate, default.learning_rate),
    }
    chosen = (f"--{name} {value}" for name, (value, unless) in options.items() if value != unless)
    return " ".join(["mpi-fast train", *chosen])


def _save(
    output: Path,
    resume_file: Path | None,
    config: TrainingConfig,
    network: nn.Module,
    average: dict[str, Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
    done: Done,
) -> None:
    """Write both files; in the finish only the first, so that another run can continue from before it."""
    device = next(network.parameters()).device
    model = {
        "format": FORMAT,
        "method": method_of(config.network),
        "grid": list(config.grid),
        "network": config.network.to_dict(),
        "sigma_range": list(SIGMA),
        "state": {name: _rounded(value.cpu().contiguous()) for name, value in average.items()},
        "provenance": _provenance(config, done, device),
    }
    state = {
        "network": network.state_dict(),
        "average": average,
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        **done._asdict(),
        "identity": _identity(config),
    }
    for path, content in ((output, model), (resume_file, state)):
        if path is None:
            continue
        with atomic_path(path) as temporary:
            torch.save(content, temporary)


def _rounded(weights: Tensor) -> Tensor:
    """Round float32 numbers to 16 significant bits, whose last byte is zero, so that a wheel is a fifth smaller."""
    return ((weights.view(torch.int32) + 0x80) & ~0xFF).view(torch.float32)


def _identity(config: TrainingConfig) -> dict[str, Any]:
    """The settings that a resumed run must share with the earlier run."""
    identity: dict[str, Any] = {"network": config.network.to_dict(), "seed": config.seed}
    if not RECIPES[method_of(config.network)].open_ended:  # open-ended runs may get more data
        identity |= {"grid": list(config.grid), "scanners": config.scanners, "phantoms": config.phantoms}
    return identity


def _restore(
    output: Path,
    file: Path,
    config: TrainingConfig,
    network: nn.Module,
    average: dict[str, Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
    device: torch.device,
) -> Done:
    """Restore weights, averages and optimisers."""
    if not file.is_file():
        if not output.is_file():
            raise ModelError(f"{file}: nothing to resume from; train without --resume first")
        return _restore_average(output, config, network, average)
    try:
        content, _ = read_archive(file, largest=4 * LARGEST_FILE)  # network, average, two optimiser states
        state = torch.load(io.BytesIO(content), map_location=device, weights_only=True)
        identity = state["identity"]
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{file}: not a file to resume from ({type(error).__name__})") from error
    if identity != _identity(config):
        raise ModelError(f"{file}: made with {identity}, expected {_identity(config)}")
    try:
        network.load_state_dict(state["network"])
        average.update(state["average"])
        for optimiser, before in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(before)
        return Done(*(state[name] for name in Done._fields))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{file}: incomplete: {str(error).splitlines()[0]}") from error


def _restore_average(output: Path, config: TrainingConfig, network: nn.Module, average: dict[str, Tensor]) -> Done:
    """Continue from a checkpoint, which has only the averaged weights."""
    trained = load_trained(output)
    if type(trained.network) is not type(network) or trained.network.config != config.network:
        raise ModelError(f"{output}: another network than {config.network}; expected the one to go on with")
    network.load_state_dict(trained.network.state_dict())
    average.update({name: value.detach().clone().float() for name, value in network.state_dict().items()})
    made = trained.provenance
    return Done(made["steps"], made["frames"], 60 * made["minutes"], 60 * made["cpu_minutes"])
