"""``model.pt``: a trained network as a plain dict of tensors, numbers and strings.

``format``       version of this layout, 2
``method``       kind of network, one of `recipes`
``grid``         [ny, nx] of an opponent; the network itself serves every grid
``network``      the fields of its configuration, such as `network.PosteriorConfig`
``sigma_range``  [smallest, largest] noise level of the noisy images in training
``state``        {name: float32 tensor}, the moving average of the weights
``provenance``   how it was trained

It is read with ``torch.load(weights_only=True)``, which builds only tensors and plain values, from an archive that
`archive` has checked. The network is built only after its configuration has been compared with the tensors.
"""

import io
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mpi_fast.errors import ModelError
from mpi_fast.limits import LARGEST_GRID
from mpi_fast.training.archive import read_archive
from mpi_fast.training.recipes import RECIPES, Recipe

FORMAT = 2
WIDEST, DEEPEST = 1024, 64  # limits of settings: channels, and number of repeated parts
REPEATED = "blocks", "layers"
OMITTED = ("coarse_every",)  # settings that may be zero


@dataclass(frozen=True)
class Trained:
    """A network of any kind, in evaluation mode, with facts about it."""

    network: nn.Module
    grid: tuple[int, int]
    sigma_range: tuple[float, float]
    provenance: dict[str, Any]
    method: str


def load_trained(path: str | Path) -> Trained:
    """Read and check a checkpoint of any network that mpi-fast trains.

    Raises
    ------
    ModelError
        For a file that is missing, too large, damaged, not a checkpoint, or of a newer format, whose configuration does
        not fit its tensors, or that contains NaN; nothing is executed.
    """
    archive, storages = read_archive(path)
    try:
        content = torch.load(io.BytesIO(archive), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises errors of pickle, of zip and of its own
        raise ModelError(
            f"{path}: not a checkpoint of plain tensors, numbers and strings; nothing was executed"
        ) from error
    keys = {"format", "method", "grid", "network", "sigma_range", "state", "provenance"}
    if not isinstance(content, dict) or not keys <= content.keys():
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ModelError(f"{path}: expected a dict with {', '.join(sorted(keys))}, found {found}")
    if content["format"] != FORMAT:
        raise ModelError(f"{path}: checkpoint format {content['format']}, this version reads {FORMAT}")
    try:
        ny, nx = (int(n) for n in content["grid"])
        low, high = (float(s) for s in content["sigma_range"])
        if min(ny, nx) < 2 or max(ny, nx) > LARGEST_GRID or not 0 < low < high < math.inf:
            raise ValueError(f"grid {ny} x {nx}, noise levels {low} to {high}")
        method = str(content["method"])
        if method not in RECIPES:
            raise ValueError(f"method '{method}', expected one of {', '.join(RECIPES)}")
        state = check_tensors(content["state"], storages)
        network = build_like(state, RECIPES[method], content["network"], (ny, nx))
        network.load_state_dict(state)
        provenance = dict(content["provenance"])
    except (TypeError, ValueError, RuntimeError, AttributeError, OverflowError, LookupError) as error:
        raise ModelError(f"{path}: {(str(error).splitlines() or [repr(error)])[0]}") from error
    broken = [name for name, value in network.state_dict().items() if not torch.isfinite(value).all()]
    if broken:
        raise ModelError(f"{path}: NaN or Inf in {len(broken)} tensors, the first is {broken[0]}")
    return Trained(network.eval(), (ny, nx), (low, high), provenance, method)


def check_tensors(state: Any, storages: Sequence[int]) -> dict[str, Tensor]:
    """Tensors by name, each in float32 with a separate storage; ``storages`` are the sizes in the file.

    Raises
    ------
    ValueError
        For anything else, with the name of the tensor. torch does not compare the size of a tensor with its numbers.
    """
    if not isinstance(state, dict) or not state:
        raise ValueError("state: expected tensors by name")
    there = Counter(storages)
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise ValueError(f"state: {name}: expected a name and a tensor")
        size = tensor.untyped_storage().nbytes()
        there[size] -= 1
        if there[size] < 0 or tensor.numel() * tensor.element_size() != size:
            raise ValueError(f"state: {name}: {tuple(tensor.shape)} of {tensor.dtype}, which the file does not hold")
        if tensor.dtype != torch.float32 or not tensor.is_contiguous():
            raise ValueError(f"state: {name}: {tensor.dtype}, expected contiguous float32")
    return state


def build_like(state: dict[str, Tensor], recipe: Recipe, settings: Any, grid: tuple[int, int]) -> nn.Module:
    """Build the network of a configuration, which must fit the tensors.

    Raises
    ------
    ValueError, TypeError
        For settings out of range, and for a tensor that differs, with its name; before anything is allocated.
    """
    for name, value in dict(settings).items():
        smallest = 0 if name in OMITTED else 1
        largest = DEEPEST if str(name).endswith(REPEATED) else WIDEST
        if type(value) is not int or not smallest <= value <= largest:
            raise ValueError(f"network: {name} {value!r}: expected a whole number from {smallest} to {largest}")
    config = recipe.config(**settings)
    with torch.device("meta"):  # shapes without numbers
        expected = recipe.build(config, grid).state_dict()
    for name in {**expected, **state}:
        wanted, found = (tuple(one[name].shape) if name in one else None for one in (expected, state))
        if wanted != found:
            raise ValueError(f"state: {name}: {found or 'is missing'}, the network has {wanted or 'none'}")
    return recipe.build(config, grid)
