"""The posterior mean D(x_t; sigma_t | y) of an image given its signals, by a network with the scanner as an input.

A frame has the signals ``y = S V^T x + sigma xi`` (see `calibration`), optionally with a noisy image ``x_t = x +
sigma_t n``. The network is a sequence of blocks. Each block

1. combines the signals, the noisy image and the current image x_k, whose standard deviation is a learned spread r_k,
   exactly to a Gaussian, with mean m and standard deviation d of each voxel;
2. corrects it by convolutions F, whose inputs include the change by this combination: ``x_{k+1} = m + d F``.

This is an unrolled algorithm (Monga, Li and Eldar, "Algorithm unrolling", IEEE Signal Processing Magazine 2021) whose
data-consistency step is exact. The features of a block are passed to the next one, so the convolutions of all blocks
form one residual network with repeated data consistency. The `Conditioner` computes the spreads and modulates the
features from the noise of the signals, the measured share of the grid and the noise of x_t.

The last block has a second output, the logarithm of the expected error of each voxel. From its features also follow the
quantiles of the errors of each frame. So one evaluation gives image and intervals, and
``(D - x_t) / sigma_t^2`` is the score of the image's distribution given the signals (Tweedie's formula).

A volume is processed as a batch of slices whose orientation changes from block to block, xy, xz, yz, while signals are
combined with the whole volume. So the same weights serve planes of every grid and volumes.
"""

from dataclasses import asdict, dataclass
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpi_fast.constants import PLANES, UNSURE, VIEWS, orientation
from mpi_fast.likelihood import WIDTHS
from mpi_fast.training.combination import Signals, from_basis, gains, signal_changes, unseen
from mpi_fast.training.mixed import mixed
from mpi_fast.uncertainty import LEVELS, NORMAL

INJECTED = 3 + len(VIEWS)  # channels that enter each block: x_k, the changes, how well each voxel is measured
DESCRIPTORS = 2 + len(WIDTHS)
FIRST_SPREAD, LAST_SPREAD = 3.0, 0.4  # of the blocks at the start of training, relative to sqrt(relative noise) / 2


@dataclass(frozen=True)
class PosteriorConfig:
    """Widths and depths.

    Attributes
    ----------
    blocks : int
        Number of blocks, each with a data-consistency step and convolutions.
    width, inner : int
        Channels at full and at half resolution.
    embedding : int
        Width of the embedding in the `Conditioner`.
    coarse_every : int
        One of so many blocks, including the last, also corrects at half resolution; zero: none does.
    """

    blocks: int = 28
    width: int = 16
    inner: int = 32
    embedding: int = 64
    coarse_every: int = 0

    def residual_blocks(self, block: int) -> list[int]:
        """Widths of the residual blocks in one block: at full resolution and, if it has one, at half resolution."""
        coarse = self.coarse_every and (self.blocks - 1 - block) % self.coarse_every == 0
        return [self.width, self.inner] if coarse else [self.width]

    def to_dict(self) -> dict[str, int]:
        """Plain numbers, as a checkpoint stores them."""
        return asdict(self)


class Estimate(NamedTuple):
    """Images of frames and their uncertainty, for G scanners with K frames each.

    Attributes
    ----------
    image : (G, K, N) float32
        Posterior mean, not clipped at zero.
    log_error : (G, K, N) float32
        Logarithm of the expected error, the standard deviation of a Gaussian likelihood.
    log_quantiles : (G, K, 2) float32
        Logarithms of the 50 and 95 % quantiles of a frame's errors in units of their size (`uncertainty.LEVELS`).
    earlier : list of (G, K, N) float32
        Images of the blocks before the last one.
    """

    image: Tensor
    log_error: Tensor
    log_quantiles: Tensor
    earlier: list[Tensor]


class Conditioner(nn.Module):
    """Computes spreads of all blocks, and gains and shifts of their features, from descriptors of a frame.

    The descriptors are the relative noise ``sigma sqrt(N) / ||S||``, the precision of x_t, and the measured share of
    the grid for white priors of `likelihood.WIDTHS`.
    """

    def __init__(self, config: PosteriorConfig) -> None:
        super().__init__()
        self.embed = nn.Sequential(
            nn.Linear(DESCRIPTORS, config.embedding),
            nn.SiLU(),
            nn.Linear(config.embedding, config.embedding),
            nn.SiLU(),
        )
        self.spread = nn.Linear(config.embedding, config.blocks)
        self.widths = [width for block in range(config.blocks) for width in config.residual_blocks(block)]
        self.modulation = nn.Linear(config.embedding, 2 * sum(self.widths))
        identity = torch.cat([torch.tensor([1.0, 0.0]).repeat_interleave(width) for width in self.widths])
        self.register_buffer("identity", identity, persistent=False)
        for layer in (self.spread, self.modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        falling = torch.linspace(log(FIRST_SPREAD), log(LAST_SPREAD), config.blocks)
        self.spread.bias.data.copy_(falling)

    def forward(self, signals: Signals, unseen: Tensor, precision: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Spreads and modulations of frames.

        Parameters
        ----------
        signals : Signals
        unseen : (G, K, WIDTHS, N)
            Logarithm of the factor by which the signals reduce the deviation of white images.
        precision : (G, K)
            Precision of x_t; zero if there is none.

        Returns
        -------
        spreads : (G, K, blocks)
        modulations : list of (G * K, channels, 1, 1)
            Gain and shift of each residual block, one after the other.
        """
        voxels = signals.basis.shape[1]
        power = signals.singular_values.square().sum(dim=1, keepdim=True)
        noise = (signals.noise * (voxels / power.clamp_min(1e-12)).sqrt()).clamp(1e-4, 1e3)
        known = torch.stack([0.5 * noise.log(), 0.5 * torch.log1p(precision)], dim=2)
        hidden = self.embed(torch.cat([known, unseen.mean(dim=3)], dim=2))
        certain = (4 / noise.clamp_max(4.0) + precision).rsqrt()  # sqrt(noise) / 2, reduced by x_t
        spreads = certain[..., None] * torch.exp(self.spread(hidden).clamp(-6, 6))
        modulations = (self.modulation(hidden) + self.identity).flatten(0, 1)[:, :, None, None]
        return spreads, list(modulations.split([width for width in self.widths for _ in range(2)], dim=1))


class ResidualBlock(nn.Module):
    """``x + conv(SiLU(gain conv(SiLU(x)) + shift))``, the identity at the start of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        """(B, width, rows, columns), and gain and shift of each channel, (B, width, 1, 1) -> the features' shape."""
        hidden = self.first(functional.silu(x)) * gain.to(x.dtype) + shift.to(x.dtype)
        out: Tensor = x + self.second(functional.silu(hidden))
        return out


class HalfResolution(nn.Module):
    """A correction of features at half their resolution, a constant at the start of training.

    No activation precedes ``up``. With a SiLU there, a high learning rate can drive all its inputs to large negative
    numbers, where it is zero and has no gradient, so that the whole correction stays dead.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(width, inner, 3, stride=2, padding=1)
        self.block = ResidualBlock(inner)
        self.up = nn.Conv2d(inner, 4 * width, 1)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        """(B, width, rows, columns), and gain and shift, (B, inner, 1, 1) -> the features' shape."""
        rows, columns = x.shape[2:]
        half = self.block(self.down(functional.silu(x)), gain, shift)
        out: Tensor = functional.pixel_shuffle(self.up(half), 2)[:, :, :rows, :columns]
        return x + out


class Corrector(nn.Module):
    """The convolutions of one block."""

    def __init__(self, config: PosteriorConfig, block: int) -> None:
        super().__init__()
        width, *inner = config.residual_blocks(block)
        injected = INJECTED + (0 if block else 2 * len(WIDTHS))
        self.inject = nn.Conv2d(injected, width, 3, padding=1)
        self.stages = nn.ModuleList([ResidualBlock(width), *(HalfResolution(width, one) for one in inner)])
        self.head = nn.Conv2d(width, 2 if block == config.blocks - 1 else 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, injected: Tensor, features: Tensor | None, modulations: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, injected, rows, columns), features of the block before, modulations -> outputs in float32, features."""
        with mixed(injected.device, self.training):  # the combination with the signals is always in float32
            x = self.inject(injected)
            x = x if features is None else features + x
            for stage, gain, shift in zip(self.stages, modulations[::2], modulations[1::2], strict=True):
                x = stage(x, gain, shift)
        return self.head(functional.silu(x.float())), x


class PosteriorNetwork(nn.Module):
    """D(x_t; sigma_t | y) and the size of its error, for planes and volumes of any grid."""

    def __init__(self, config: PosteriorConfig) -> None:
        super().__init__()
        self.config = config
        self.conditioner = Conditioner(config)
        self.correctors = nn.ModuleList(Corrector(config, block) for block in range(config.blocks))
        self.tails = nn.Linear(config.width, len(LEVELS))
        nn.init.zeros_(self.tails.weight)
        self.tails.bias.data.copy_(torch.tensor(NORMAL).log())

    def forward(
        self,
        signals: Signals,
        grid: tuple[int, int, int],
        noisy: Tensor | None = None,
        precision: Tensor | None = None,
    ) -> Estimate:
        """Estimate images.

        Parameters
        ----------
        signals : Signals
        grid : (nz, ny, nx)
            Number of voxels, ``nz = 1`` for planes; voxels are in MDF order, x fastest.
        noisy : (G, K, N) float32, optional
            x_t.
        precision : (G, K) float32
            ``1 / sigma_t^2``; zero for frames without a noisy image.

        Returns
        -------
        Estimate
        """
        frames, voxels, shape = signals.noise.numel(), signals.basis.shape[1], grid if grid[0] > 1 else grid[1:]
        first, spread, planned, share = self._plan(signals, precision)
        modulations = iter(planned)
        gain = gains(signals, (spread[..., None] * spread.new_tensor((1.0, *VIEWS))).flatten(2))
        blocks, views = len(self.correctors), 1 + len(VIEWS)
        left = unseen(signals, gain[:, :, ::views])
        # Taken apart at once: the gradient of a slice is as large as the whole. Axes of length one stay, (G, K, 1, N):
        # what is said of a block's voxels is one of its channels.
        deviations = torch.split(spread[..., None] * torch.exp(left), 1, dim=2)
        halves, parts = torch.split(0.5 * left, 1, dim=2), torch.split(gain, views, dim=2)
        if noisy is not None:
            shares, known = torch.split(share, 1, dim=2), torch.split((1 - share) * noisy[:, :, None], 1, dim=2)

        image = signals.y.new_zeros(*signals.noise.shape, 1, voxels)
        features, made, log_error = image, [], image
        of_blocks = zip(self.correctors, parts, halves, deviations, strict=True)
        for k, (corrector, gain_k, half_left, d) in enumerate(of_blocks):
            mean = image if noisy is None else shares[k] * image + known[k]
            changed = signal_changes(signals, mean, gain_k)
            shown = [mean, torch.asinh(changed / d), half_left]
            turn = orientation(k) if grid[0] > 1 else PLANES[0]
            slices = grid[turn[0] - 1]
            injected = torch.cat(shown if k else [*shown, first], dim=2).reshape(frames, -1, *shape)
            modulated = [of_slices(next(modulations), slices) for _ in self.config.residual_blocks(k) for _ in range(2)]
            flat = to_slices(features, turn) if k else None
            out, flat = corrector(to_slices(injected, turn), flat, modulated)
            features = from_slices(flat, turn, grid)
            out = from_slices(out, turn, grid).reshape(*signals.noise.shape, -1, voxels)
            correction, *unsure = torch.split(out, 1, dim=2) if k == blocks - 1 else (out,)
            image = mean + torch.split(changed, [1, views - 1], dim=2)[0] + d * correction
            made.append(image.squeeze(2))
            if unsure:
                log_error = torch.log(d) + UNSURE * torch.tanh(unsure[0] / UNSURE)
        # No gradient from the quantiles to the image.
        pooled = functional.silu(features.detach().float()).flatten(2).mean(dim=2).reshape(*signals.noise.shape, -1)
        return Estimate(made[-1], log_error.squeeze(2), self.tails(pooled), made[:-1])

    def _plan(self, signals: Signals, precision: Tensor | None) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
        """Quantities of frames that do not depend on images.

        Returns
        -------
        first : (G, K, 2 * WIDTHS, N)
            Estimates from the signals alone: means for white priors, and the logarithms of the reduction of their
            deviations.
        spread : (G, K, blocks)
            Spread of the image that each block combines with the signals: the current image and x_t.
        modulations : list
            See `Conditioner`.
        share : (G, K, blocks, 1)
            Share of the current image in this combination.
        """
        widths = signals.noise.new_tensor(WIDTHS)
        white = gains(signals, widths.expand(*signals.noise.shape, -1))
        means = from_basis(white * signals.y[:, :, None], signals.basis)
        left = unseen(signals, white)
        precision = torch.zeros_like(signals.noise) if precision is None else precision
        spreads, modulations = self.conditioner(signals, left, precision)
        # Before the first block, only the root-mean-square of one is known.
        certainty = torch.cat([torch.ones_like(spreads[..., :1]), spreads[..., 1:] ** -2], dim=2)
        total = certainty + precision[..., None]
        # Means of wide priors are noisy; deviations enter by their square root.
        first = torch.cat([means * widths.rsqrt()[:, None], 0.5 * left], dim=2)
        return first, total.rsqrt(), modulations, (certainty / total)[..., None]


def to_slices(volume: Tensor, turn: tuple[int, int, int]) -> Tensor:
    """(B, C, nz, ny, nx) -> (B * slices, C, rows, columns), for axes ``turn`` of [., z, y, x]; planes are slices."""
    if volume.dim() == 4:
        return volume
    along, rows, columns = (axis + 1 for axis in turn)
    return volume.permute(0, along, 1, rows, columns).flatten(0, 1)


def of_slices(frames: Tensor, slices: int) -> Tensor:
    """Repeat values of each frame, (B, C, 1, 1), for each of its slices: (B * slices, C, 1, 1)."""
    if slices == 1:
        return frames
    return frames[:, None].expand(-1, slices, -1, -1, -1).flatten(0, 1)


def from_slices(slices: Tensor, turn: tuple[int, int, int], grid: tuple[int, int, int]) -> Tensor:
    """The inverse of `to_slices`."""
    if grid[0] == 1:
        return slices
    along, rows, columns = (axis + 1 for axis in turn)
    stacked = slices.reshape(-1, grid[along - 2], *slices.shape[1:])  # (B, along, C, rows, columns)
    places = (0, along, 1, rows, columns)
    return stacked.permute(*(places.index(axis) for axis in range(5)))
