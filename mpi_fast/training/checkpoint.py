"""``model.pt``: a trained network as a plain dict of tensors, numbers and strings.

``format``       version of this layout, 2
``method``       what kind of network, one of `recipes`; ``score`` where it is missing
``grid``         [ny, nx]
``network``      the fields of its configuration, such as `network.NetworkConfig`
``sigma_range``  [smallest, largest] noise level of the sampler, in the training of a score network
``state``        {name: float32 tensor}, the moving average of the weights
``provenance``   who trained it, on what, for how long

It is read with ``torch.load(weights_only=True)``, which builds tensors and plain values and nothing else.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mpi_fast.errors import ModelError
from mpi_fast.training.network import ScoreNetwork
from mpi_fast.training.recipes import RECIPES

FORMAT = 2
LARGEST_FILE = 256 * 2**20  # bytes; a score network has a few MB


@dataclass(frozen=True)
class Trained:
    """A network of any kind, in evaluation mode, and what is known of it."""

    network: nn.Module
    grid: tuple[int, int]
    sigma_range: tuple[float, float]
    provenance: dict[str, Any]
    method: str = "score"


@dataclass(frozen=True)
class Checkpoint(Trained):
    """A score network."""

    network: ScoreNetwork


def load_checkpoint(path: str | Path) -> Checkpoint:
    """Read and check ``model.pt`` of a score network; see `load_trained`.

    Raises
    ------
    ModelError
        As `load_trained`, and for another kind of network.
    """
    trained = load_trained(path)
    if not isinstance(trained.network, ScoreNetwork):
        raise ModelError(
            f"{path}: a network of the method '{trained.method}', expected 'score'; "
            "to export it: python -m mpi_fast.export.learned"
        )
    return Checkpoint(**vars(trained))


def load_trained(path: str | Path) -> Trained:
    """Read and check a checkpoint of any network that mpi-fast trains.

    Raises
    ------
    ModelError
        For a file that is missing, too large, no checkpoint, of a newer format, or holds NaN; nothing is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"{path}: no such file; expected a checkpoint (model.pt) written by mpi-fast train")
    if path.stat().st_size > LARGEST_FILE:
        raise ModelError(f"{path}: {path.stat().st_size / 2**20:.0f} MiB, expected at most {LARGEST_FILE >> 20} MiB")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises pickle's, zip's and its own errors alike
        raise ModelError(
            f"{path}: not a checkpoint of plain tensors, numbers and strings; nothing was executed"
        ) from error
    keys = {"format", "grid", "network", "sigma_range", "state", "provenance"}
    if not isinstance(content, dict) or not keys <= content.keys():
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ModelError(f"{path}: expected a dict with {', '.join(sorted(keys))}, found {found}")
    if content["format"] != FORMAT:
        raise ModelError(f"{path}: checkpoint format {content['format']}, this version reads {FORMAT}")
    try:
        ny, nx = (int(n) for n in content["grid"])
        low, high = (float(s) for s in content["sigma_range"])
        if min(ny, nx) < 2 or max(ny, nx) > 1024 or not 0 < low < high < math.inf:
            raise ValueError(f"grid {ny} x {nx}, noise levels {low} to {high}")
        method = str(content.get("method", "score"))
        if method not in RECIPES:
            raise ValueError(f"method '{method}', expected one of {', '.join(RECIPES)}")
        recipe = RECIPES[method]
        network = recipe.build(recipe.config(**content["network"]), (ny, nx))
        network.load_state_dict(content["state"])
        provenance = dict(content["provenance"])
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(f"{path}: {str(error).splitlines()[0]}") from error
    broken = [name for name, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f"{path}: NaN or Inf in {len(broken)} tensors, the first is {broken[0]}")
    return Trained(network.eval(), (ny, nx), (low, high), provenance, method)
