"""Training data: random phantoms measured by random scanners, reduced exactly like real frames.

A network for a single scanner would be of little use, so each training frame comes from one of a few hundred simulated
`scanners`. A batch of thousands of signals takes only a few products of small matrices on any device.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mpi_fast.likelihood import DETECTION, SIGNAL_PER_IMAGE
from mpi_fast.phantoms import TRAINING_FAMILIES, generate
from mpi_fast.training.operators import SPIKES, Operators

SNR_DB = (-5.0, 45.0)
EMPTY, NEAR_EMPTY = 0.04, 0.06  # shares of frames without particles, and with too few to be detected
SPIKY = 0.1  # share of frames with spikes


@dataclass(frozen=True)
class Frames:
    """Reduced signals of G scanners with K frames each, scaled as at run time, and their true images.

    Attributes
    ----------
    y, noise : (G, K, R), (G, K)
        Reduced signals, and the noise level estimated from their residual.
    singular_values, basis : (G, R), (G, N, R)
        S and V of the scanners' calibrations, padded with zeros to a common rank.
    image : (G, K, N)
        Images of root-mean-square about one.
    """

    y: Tensor
    noise: Tensor
    singular_values: Tensor
    basis: Tensor
    image: Tensor

    @property
    def frames(self) -> int:
        """Total number of frames, G K."""
        return self.noise.numel()


def draw_frames(scanners: Operators, phantoms: Tensor, groups: int, frames: int, rng: torch.Generator) -> Frames:
    """Signals of random phantoms through ``groups`` random scanners, ``frames`` each.

    Parameters
    ----------
    scanners : Operators
        Scanners to choose from.
    phantoms : (P, ny, nx) or (P, nz, ny, nx)
        Phantoms to choose from.
    """
    device = phantoms.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, device=device)

    which = torch.randint(len(scanners), (groups,), generator=rng, device=device)
    s, v = scanners.singular_values[which], scanners.basis[which]
    x = _random_images(phantoms, groups * frames, rng).reshape(groups, frames, -1)

    # Signals, their noise, and the noise level estimated from the residual.
    clean = x @ scanners.signal[which].transpose(1, 2)
    missed = (x @ scanners.outside[which].transpose(1, 2)).square().sum(-1)
    rank, freedom = scanners.rank[which][:, None], scanners.freedom[which][:, None]
    snr = SNR_DB[0] + (SNR_DB[1] - SNR_DB[0]) * uniform(groups, frames)
    kind = uniform(groups, frames)
    snr = torch.where(kind < EMPTY + NEAR_EMPTY, -25.0 + 20.0 * uniform(groups, frames), snr)
    energy = (clean.square().sum(-1) + missed).clamp_min(1e-12)
    level = (energy / (rank + freedom)).sqrt() * 10 ** (-snr / 20)
    empty = (kind < EMPTY)[..., None]
    x, clean, missed = x * ~empty, clean * ~empty, missed * ~empty[..., 0]
    y = clean + level[..., None] * (normal(*clean.shape) @ scanners.noise_factor[which].transpose(1, 2))
    fluctuation = 1 + normal(groups, frames) * (2 / freedom).sqrt()
    # In some frames a few rows have spikes of some standard deviations.
    height = normal(groups, frames, SPIKES) * torch.exp(3.0 * uniform(groups, frames, 1))
    height = level[..., None] * height * (uniform(groups, frames, 1) < SPIKY) * (uniform(groups, frames, SPIKES) < 0.5)
    spiked = height @ scanners.spikes[which]
    y = y + spiked
    outliers = (height.square().sum(-1) - spiked.square().sum(-1)).clamp_min(0.0)
    noise = (level.square() * fluctuation.clamp_min(0.1) + (missed + outliers) / freedom).sqrt()

    # The frame's scale (see `likelihood.signal_scale`).
    signal_energy = y.square().sum(-1) - rank * noise.square()
    signal_energy = torch.maximum(signal_energy, DETECTION * (2 * rank).sqrt() * noise.square())
    scale = (signal_energy / s.square().sum(-1, keepdim=True)).sqrt() / SIGNAL_PER_IMAGE
    return Frames(y / scale[..., None], noise / scale, s, v, x / scale[..., None])


def turned_frames(frames: Frames, grid: tuple[int, ...], rng: torch.Generator) -> Frames:
    """The same signals of flipped and transposed scanners and images, on grids of any number of axes.

    All scanners of a batch are transformed in the same way; axes of equal length are put in a random order.
    """
    device, voxels = frames.image.device, frames.image.shape[-1]
    index = torch.arange(voxels, device=device).reshape(grid)
    flips = torch.rand(len(grid), generator=rng, device=device) < 0.5
    index = index.flip([axis for axis, flip in enumerate(flips.tolist()) if flip])
    order = torch.randperm(len(grid), generator=rng, device=device).tolist()
    if tuple(grid[axis] for axis in order) == tuple(grid):
        index = index.permute(order)
    flat = index.reshape(-1)
    return replace(frames, image=frames.image[..., flat], basis=frames.basis[:, flat])


def _random_images(phantoms: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Phantoms with random amplitudes; one in four is added to another."""
    device = phantoms.device
    first, second = torch.randint(len(phantoms), (2, count), generator=rng, device=device)
    each = count, *[1] * (phantoms.ndim - 1)
    share = torch.rand(each, generator=rng, device=device)
    over = (torch.rand(each, generator=rng, device=device) < 0.25) * share
    amplitude = torch.exp(torch.rand(each, generator=rng, device=device) * 3.0 - 2.0)
    return amplitude * torch.maximum(phantoms[first], over * phantoms[second])


def training_phantoms(count: int, seed: int, grid: tuple[int, int]) -> Tensor:
    """Phantoms of all training families in equal shares, (count, ny, nx) float32."""
    return torch.from_numpy(generate(list(TRAINING_FAMILIES), count, grid, seed))


def frame_batches(scanners: Operators, phantoms: Tensor, groups: int, frames: int, seed: int) -> Iterator[Frames]:
    """Endless batches of `Frames`, of ``groups`` scanners each."""
    rng = torch.Generator(device=phantoms.device)
    rng.manual_seed(seed)
    ny, nx = phantoms.shape[1:]
    while True:
        yield turned_frames(draw_frames(scanners, phantoms, groups, frames, rng), (ny, nx), rng)
