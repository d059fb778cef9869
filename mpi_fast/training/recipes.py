"""The networks that can be trained, and what differs between them: configuration, data and loss.

``score`` is ours; ``dernet`` and ``deq`` are what it is compared with. All are trained by one loop on the same
scanners, phantoms and noise, and judged by the same error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mpi_fast.training.data import Batch, Frames, batches, combine, frame_batches
from mpi_fast.training.deq import DEPTH, DeqConfig, Equilibrium
from mpi_fast.training.dernet import Dernet, DernetConfig
from mpi_fast.training.mixed import mixed
from mpi_fast.training.network import NetworkConfig, ScoreNetwork

OUTLIER = 2.0  # an image this many times its expected root-mean-square counts less


def loss_of(network: nn.Module, batch: Batch) -> Tensor:
    """Mean squared error in units of the linear estimate's deviation (lambda = 1 / c_out^2 of EDM, per voxel)."""
    with mixed(batch.image.device):
        denoised = network(batch.condition, batch.image, batch.sigma)
    return weighted_error(denoised - batch.target, batch.image[:, 1:2], batch.target)


def weighted_error(error: Tensor, deviation: Tensor, target: Tensor) -> Tensor:
    """Mean square of an error in units of a deviation, images first and their voxels in all other axes."""
    # Phantoms outside the scanner's view are bright next to their signals; nobody could reconstruct them.
    size = target.square().flatten(1).mean(dim=1).reshape(-1, *[1] * (target.ndim - 1))
    return ((error / deviation).square() * (OUTLIER**2 / size.clamp_min(OUTLIER**2))).mean()


def _frames_loss(images: Tensor, batch: Frames) -> Tensor:
    """`weighted_error` of images (G, K, N), with the deviation that a white prior leaves."""
    start = torch.zeros_like(batch.image), torch.ones_like(batch.noise)
    _, deviation = combine(batch.y, batch.singular_values, batch.basis, batch.noise, *start)
    error = images - batch.image
    return weighted_error(error.flatten(0, 1), deviation.flatten(0, 1), batch.image.flatten(0, 1))


def _dernet_loss(network: nn.Module, batch: Frames) -> Tensor:
    return _frames_loss(network(batch.y, batch.noise, batch.singular_values, batch.basis), batch)


def _deq_loss(network: Equilibrium, batch: Frames) -> Tensor:
    return _frames_loss(network.images(batch, int(torch.randint(DEPTH + 1, ()))), batch)


@dataclass(frozen=True)
class Recipe:
    """How one kind of network is trained.

    Attributes
    ----------
    config : type
        Its widths and depths.
    build : callable
        A network from a configuration and a grid (ny, nx).
    batches : callable
        Endless batches, as `data.batches`.
    loss : callable
        Of a network on a batch.
    frames : int
        Of each scanner in a batch.
    learning_rate : float
        Highest one, unless told otherwise.
    """

    config: type[Any]
    build: Callable[[Any, tuple[int, int]], nn.Module]
    batches: Callable[..., Iterator[Any]]
    loss: Callable[[Any, Any], Tensor]
    frames: int = 6
    learning_rate: float = 1e-3


RECIPES: dict[str, Recipe] = {
    "score": Recipe(NetworkConfig, lambda config, grid: ScoreNetwork(config), batches, loss_of),
    "dernet": Recipe(DernetConfig, Dernet, frame_batches, _dernet_loss),
    # At learning rates of 4e-4 and above it leaves its minimum now and then, for minutes.
    "deq": Recipe(DeqConfig, Equilibrium, frame_batches, _deq_loss, frames=3, learning_rate=2e-4),
}


def method_of(config: object) -> str:
    """The name of the network that a configuration belongs to."""
    return next(name for name, recipe in RECIPES.items() if isinstance(config, recipe.config))
