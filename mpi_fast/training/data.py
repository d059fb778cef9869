"""Training data: random phantoms seen by random scanners, reduced exactly as a real frame is.

A network that knows one scanner is worth little, so each training frame comes from one of a few hundred simulated
`scanners`. A batch of thousands of signals is a few products of small matrices on any device.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from mpi_fast.likelihood import DETECTION, SIGNAL_PER_IMAGE, WIDTHS
from mpi_fast.phantoms import TRAINING_FAMILIES, generate
from mpi_fast.training.operators import SPIKES, Operators

SNR_DB = (-5.0, 45.0)
EMPTY, NEAR_EMPTY = 0.04, 0.06  # shares of frames without particles, and with fewer than the noise shows
SIGMA = (0.02, 10.0)
DRAWS = 2  # noise levels for each frame; the first is the largest, that of the first step of every reconstruction
SPIKY = 0.1  # share of frames with spikes
BLIND = 1 / 8  # share of scanners that measure nothing: consensus needs an ordinary denoiser


@dataclass(frozen=True)
class Batch:
    """F frames with D draws of sampler noise each: what `ScoreNetwork` takes, and the target.

    Shapes: condition (F, CONDITION_CHANNELS, ny, nx), image (F * D, 3, ny, nx), sigma (F * D,),
    target (F * D, 1, ny, nx).
    """

    condition: Tensor
    image: Tensor
    sigma: Tensor
    target: Tensor

    @property
    def frames(self) -> int:
        """F."""
        return len(self.condition)


def combine(
    y: Tensor, singular_values: Tensor, basis: Tensor, noise: Tensor, mean: Tensor, spread: Tensor
) -> tuple[Tensor, Tensor]:
    """`Likelihood.combine` and `.deviation` for G scanners with K frames each, on tensors.

    Shapes: y (G, K, R), singular_values (G, R), basis (G, N, R), noise and spread (G, K), mean (G, K, N).
    """
    s = singular_values[:, None, :]
    signal = spread[..., None] * s
    gain = spread[..., None] * signal / (signal**2 + noise[..., None] ** 2)
    combined = mean + (gain * (y - s * (mean @ basis))) @ basis.transpose(1, 2)
    explained = (s * gain) @ basis.square().transpose(1, 2)
    return combined, spread[..., None] * (1 - explained).clamp_min(1e-6).sqrt()


@dataclass(frozen=True)
class Frames:
    """Reduced signals of G scanners with K frames each, scaled as the runtime scales them, and the images behind them.

    Attributes
    ----------
    y, noise : (G, K, R), (G, K)
        Reduced signals, and the noise level that their residual shows.
    singular_values, basis : (G, R), (G, N, R)
        S and V of the scanners' calibrations, padded with zeros to a common rank.
    image : (G, K, N)
        Of root-mean-square about one.
    """

    y: Tensor
    noise: Tensor
    singular_values: Tensor
    basis: Tensor
    image: Tensor

    @property
    def frames(self) -> int:
        """G K."""
        return self.noise.numel()


def draw_frames(scanners: Operators, phantoms: Tensor, groups: int, frames: int, rng: torch.Generator) -> Frames:
    """Signals of random phantoms through ``groups`` random scanners, ``frames`` each.

    Parameters
    ----------
    scanners : Operators
        To choose from.
    phantoms : (P, ny, nx) or (P, nz, ny, nx)
        To choose from.
    """
    device = phantoms.device

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, device=device)

    which = torch.randint(len(scanners), (groups,), generator=rng, device=device)
    s, v = scanners.singular_values[which], scanners.basis[which]
    x = _random_images(phantoms, groups * frames, rng).reshape(groups, frames, -1)

    # Signals, their noise, and the noise level that the residual shows.
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
    # Now and then a few rows are hit by spikes of some deviations.
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


def draw_batch(scanners: Operators, phantoms: Tensor, groups: int, frames: int, rng: torch.Generator) -> Batch:
    """`draw_frames` as input and target of the score network."""
    device = phantoms.device
    ny, nx = phantoms.shape[1:]
    drawn = draw_frames(scanners, phantoms, groups, frames, rng)
    x, noise, v = drawn.image, drawn.noise, drawn.basis

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    sees = uniform(groups, 1) >= BLIND
    y, s = drawn.y * sees[..., None], drawn.singular_values * sees

    # Denoising score matching, given the signals: several noise levels of each frame share its condition.
    count = frames * DRAWS
    log_sigma = np.log(SIGMA[0]) + np.log(SIGMA[1] / SIGMA[0]) * uniform(groups, count)
    first = torch.arange(count, device=device) % DRAWS == 0
    sigma = torch.where(first & sees, torch.full_like(log_sigma, SIGMA[1]), log_sigma.exp())
    repeated = [t.repeat_interleave(DRAWS, dim=1) for t in (x, y, noise)]
    start = repeated[0] + sigma[..., None] * torch.randn(groups, count, ny * nx, generator=rng, device=device)
    shrink, spread = 1 / (1 + sigma.square()), sigma * (1 + sigma.square()).rsqrt()
    estimate, deviation = combine(repeated[1], s, v, repeated[2], shrink[..., None] * start, spread)
    alone = [combine(y, s, v, noise, torch.zeros_like(x), torch.full_like(noise, width)) for width in WIDTHS]

    image = torch.stack([estimate, deviation, start, repeated[0]], dim=2).reshape(groups, count, 4, ny, nx)
    means, deviations = zip(*alone, strict=True)
    condition = torch.stack([*means, *deviations], dim=2).reshape(groups, frames, -1, ny, nx)
    turns = torch.rand(groups, 3, generator=rng, device=device) < 0.5
    image, condition = _turned(image, turns).flatten(0, 1), _turned(condition, turns).flatten(0, 1)
    return Batch(condition, image[:, :3], sigma.reshape(-1), image[:, 3:])


def turned_frames(frames: Frames, grid: tuple[int, ...], rng: torch.Generator) -> Frames:
    """The same signals of flipped and transposed scanners and images, on grids of any number of axes.

    All scanners of a batch are turned alike, with the images' axes of equal length in a random order.
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
    """Phantoms, one in four laid over another one, with random amplitude."""
    device = phantoms.device
    first, second = torch.randint(len(phantoms), (2, count), generator=rng, device=device)
    each = count, *[1] * (phantoms.ndim - 1)
    share = torch.rand(each, generator=rng, device=device)
    over = (torch.rand(each, generator=rng, device=device) < 0.25) * share
    amplitude = torch.exp(torch.rand(each, generator=rng, device=device) * 3.0 - 2.0)
    return amplitude * torch.maximum(phantoms[first], over * phantoms[second])


def _turned(images: Tensor, turns: Tensor) -> Tensor:
    """Each group (first axis) flipped and, on a square grid, transposed where ``turns`` (groups, 3) says so."""
    square = images.shape[-1] == images.shape[-2]
    turned = []
    for group, (flip_y, flip_x, transpose) in zip(images, turns.tolist(), strict=True):
        axes = [axis for axis, flip in ((-2, flip_y), (-1, flip_x)) if flip]
        one = group.flip(axes) if axes else group
        turned.append(one.transpose(-1, -2) if transpose and square else one)
    return torch.stack(turned)


def training_phantoms(count: int, seed: int, grid: tuple[int, int]) -> Tensor:
    """Phantoms of all training families in equal shares, (count, ny, nx) float32."""
    return torch.from_numpy(generate(list(TRAINING_FAMILIES), count, grid, seed))


def batches(scanners: Operators, phantoms: Tensor, groups: int, frames: int, seed: int) -> Iterator[Batch]:
    """Endless batches of ``groups * frames`` frames."""
    rng = torch.Generator(device=phantoms.device)
    rng.manual_seed(seed)
    while True:
        yield draw_batch(scanners, phantoms, groups, frames, rng)


def frame_batches(scanners: Operators, phantoms: Tensor, groups: int, frames: int, seed: int) -> Iterator[Frames]:
    """Endless batches of `Frames`, for methods that take the signals as they are."""
    rng = torch.Generator(device=phantoms.device)
    rng.manual_seed(seed)
    ny, nx = phantoms.shape[1:]
    while True:
        yield turned_frames(draw_frames(scanners, phantoms, groups, frames, rng), (ny, nx), rng)
