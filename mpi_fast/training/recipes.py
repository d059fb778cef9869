"""The networks that can be trained, with their configuration, data and loss.

``posterior`` is our network; ``dernet`` and ``deq`` are networks to compare with. All are trained by one loop. The last
two have the same scanners, phantoms and noise of one grid, and the same loss.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mpi_fast.training.combination import Signals, gains, unseen
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.data import Frames, frame_batches, training_phantoms
from mpi_fast.training.deq_network import DEPTH, DeqConfig, Equilibrium
from mpi_fast.training.dernet_network import Dernet, DernetConfig
from mpi_fast.training.mixture import PosteriorBatch, make_settings, posterior_batches
from mpi_fast.training.muon import Muon
from mpi_fast.training.network import PosteriorConfig, PosteriorNetwork
from mpi_fast.training.operators import make_operators
from mpi_fast.uncertainty import LEVELS

OUTLIER = 2.0  # an image this many times its expected root-mean-square counts less


def _frames_loss(images: Tensor, batch: Frames) -> Tensor:
    """Mean square of the error of images (G, K, N), in units of the posterior deviation for a white prior."""
    signals = Signals.of(batch.y, batch.noise, batch.singular_values, batch.basis)
    deviation = torch.exp(unseen(signals, gains(signals, torch.ones_like(batch.noise)[..., None])))[:, :, 0]
    # Phantoms outside the field of view are bright relative to their signals and cannot be reconstructed.
    size = batch.image.square().mean(dim=2, keepdim=True)
    error = (images - batch.image) / deviation
    return (error.square() * (OUTLIER**2 / size.clamp_min(OUTLIER**2))).mean()


def _dernet_loss(network: nn.Module, batch: Frames) -> Tensor:
    return _frames_loss(network(batch.y, batch.noise, batch.singular_values, batch.basis), batch)


def _deq_loss(network: Equilibrium, batch: Frames) -> Tensor:
    return _frames_loss(network.images(batch, int(torch.randint(DEPTH + 1, ()))), batch)


EARLIER, UNCERTAINTY = 0.1, 0.1  # weights in the loss: of blocks before the last one, and of the expected error

SURPRISING = 50.0  # times the expected squared error
NEGLIGIBLE = 0.01  # likewise


def posterior_loss(network: nn.Module, batch: PosteriorBatch) -> Tensor:
    """Norm of each frame's error in units of the error that the network expects, and a loss of that expectation.

    A weight that depends only on the signals does not change the minimiser; this one gives frames of all noise levels
    the same weight, as PSNR does. The norm is used instead of its square because a twentieth of the frames would
    contribute more than half of the mean square, and of the gradient's noise. The minimiser is the spatial median of
    the images that explain the signals. Over hundreds of voxels the norms of their errors are nearly equal, and so are
    median and mean. The expected error has its own likelihood.
    """
    batch = add_own_images(network, batch)
    image, log_error, log_quantiles, earlier = network(batch.signals, batch.grid, batch.noisy, batch.precision)
    squared = (image - batch.image).square()
    expected = torch.exp(2 * log_error.detach()).mean(dim=-1).clamp_min(1e-6)
    size = batch.image.square().mean(dim=-1)
    weight = OUTLIER**2 / (expected * size.clamp_min(OUTLIER**2))
    last = _norm(weight * squared.mean(dim=-1)).mean()
    others = (_norm(weight * (one - batch.image).square().mean(dim=-1)).mean() for one in earlier)
    before = sum(others, last.new_zeros(()))
    surprise = (log_error + 0.5 * _compress_outliers(squared.detach() * torch.exp(-2 * log_error))).mean()
    served = (image.detach().clamp_min(0) - batch.image).abs()  # errors of the clipped image
    misjudged = pinball(torch.log(served.clamp_min(1e-6)) - log_error.detach(), log_quantiles)
    loss: Tensor = last + EARLIER * before / max(len(earlier), 1) + UNCERTAINTY * (surprise + misjudged)
    return loss


@torch.no_grad()
def add_own_images(network: nn.Module, batch: PosteriorBatch) -> PosteriorBatch:
    """A batch in which half of the frames without a noisy image get the network's own image, with its uncertainty.

    The network thus learns to improve its own image: self-conditioning (Chen, Zhang and Hinton, "Analog bits", ICLR
    2023).
    """
    half = batch.precision.shape[1] // 2
    alone = batch.precision[:, :half] == 0
    if not alone.any():
        return batch
    signals = batch.signals._replace(y=batch.signals.y[:, :half], noise=batch.signals.noise[:, :half])
    first = network(signals, batch.grid, batch.noisy[:, :half], batch.precision[:, :half])
    certainty = torch.exp(2 * first.log_error).mean(dim=-1).reciprocal()
    noisy, precision = batch.noisy.clone(), batch.precision.clone()
    noisy[:, :half] = torch.where(alone[..., None], first.image.clamp_min(0.0), noisy[:, :half])
    precision[:, :half] = torch.where(alone, certainty, precision[:, :half])
    return replace(batch, noisy=noisy, precision=precision)


def pinball(values: Tensor, quantiles: Tensor) -> Tensor:
    """A loss that is smallest if ``quantiles`` (G, K, 2) are those of ``values`` (G, K, N) at `uncertainty.LEVELS`.

    Koenker and Bassett, "Regression quantiles", Econometrica 1978.
    """
    levels = quantiles.new_tensor(LEVELS)[:, None]
    beyond = values[:, :, None] - quantiles[..., None]
    return torch.maximum(levels * beyond, (levels - 1) * beyond).mean()


def _norm(square: Tensor) -> Tensor:
    """The square root, smooth at zero."""
    return torch.sqrt(square + NEGLIGIBLE)


def _compress_outliers(ratio: Tensor) -> Tensor:
    """The identity up to `SURPRISING`, logarithmic beyond, so that one voxel does not dominate a batch."""
    return torch.where(
        ratio < SURPRISING, ratio, SURPRISING * (1 + torch.log(ratio.clamp_min(SURPRISING) / SURPRISING))
    )


def adamw(network: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    """AdamW for all weights."""
    return [torch.optim.AdamW(network.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)]


def muon(network: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    """`muon.Muon` for convolutions between features, AdamW at a tenth of its rate for all other weights."""
    kernels = [p for p in network.parameters() if p.ndim == 4 and len(p) > 2]
    others = [p for p in network.parameters() if p.ndim != 4 or len(p) <= 2]
    adam = torch.optim.AdamW(others, lr=0.1 * learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    return [Muon(kernels, lr=learning_rate), adam]


def _one_grid(config: TrainingConfig, device: torch.device, seed: int) -> Iterator[Frames]:
    scanners = make_operators(config.scanners, config.seed, config.grid, config.processes).to(device)
    phantoms = training_phantoms(config.phantoms, config.seed, config.grid).to(device)
    assert config.frames is not None
    return frame_batches(scanners, phantoms, config.groups, config.frames, seed)


def _mixture(config: TrainingConfig, device: torch.device, seed: int) -> Iterator[PosteriorBatch]:
    # With the seed of the batches, so that a resumed run gets other scanners than before.
    return posterior_batches(make_settings(config.mixture, seed, config.processes), seed, device)


@dataclass(frozen=True)
class Recipe:
    """How one kind of network is trained.

    Attributes
    ----------
    config : type
        Configuration class with widths and depths.
    build : callable
        Makes a network from a configuration and a grid (ny, nx).
    data : callable
        Makes endless batches from a complete `TrainingConfig`, a device and a seed.
    loss : callable
        Loss of a network on a batch.
    frames : int
        Default number of frames of each scanner in a batch.
    learning_rate : float
        Default of the largest learning rate.
    optimisers : callable
        Makes optimisers from a network and the learning rate.
    open_ended : bool
        Whether the learning rate falls, and the average of the weights grows longer, with the number of steps, so that
        a run may end or continue at any time (Karras et al., "Analyzing and improving the training dynamics of
        diffusion models", CVPR 2024). Otherwise both depend on the minutes.
    """

    config: type[Any]
    build: Callable[[Any, tuple[int, int]], nn.Module]
    data: Callable[[TrainingConfig, torch.device, int], Iterator[Any]]
    loss: Callable[[Any, Any], Tensor]
    frames: int = 6
    learning_rate: float = 1e-3
    optimisers: Callable[[nn.Module, float], list[torch.optim.Optimizer]] = adamw
    open_ended: bool = False

    def complete(self, config: TrainingConfig) -> TrainingConfig:
        """The configuration with the defaults of the recipe."""
        frames = self.frames if config.frames is None else config.frames
        rate = self.learning_rate if config.learning_rate is None else config.learning_rate
        return replace(config, frames=frames, learning_rate=rate)


RECIPES: dict[str, Recipe] = {
    "posterior": Recipe(
        PosteriorConfig,
        lambda config, grid: PosteriorNetwork(config),
        _mixture,
        posterior_loss,
        learning_rate=1e-2,
        optimisers=muon,
        open_ended=True,
    ),
    "dernet": Recipe(DernetConfig, Dernet, _one_grid, _dernet_loss),
    # At learning rates of 4e-4 and above it sometimes leaves its minimum for minutes.
    "deq": Recipe(DeqConfig, Equilibrium, _one_grid, _deq_loss, frames=3, learning_rate=2e-4),
}


def method_of(config: object) -> str:
    """The name of the network that a configuration belongs to."""
    return next(name for name, recipe in RECIPES.items() if isinstance(config, recipe.config))
