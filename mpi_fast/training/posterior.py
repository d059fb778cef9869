"""The posterior mean D(x_t; sigma_t | y) of an image given its signals, with the scanner inside the network.

A frame says ``y = S V^T x + sigma xi`` (see `calibration`); a sampler adds a noisy image ``x_t = x + sigma_t n``. The
network is a sequence of blocks, each of which

1. combines, exactly, the signals, the noisy image and the current image x_k, taken as certain to within a learned
   spread r_k, into a Gaussian: mean m and standard deviation d of each voxel;
2. corrects it by convolutions, which see what the combination changed: ``x_{k+1} = m + d F``.

This is an unrolled algorithm (Monga, Li and Eldar, "Algorithm unrolling", IEEE Signal Processing Magazine 2021) whose
data-consistency step is exact. The features of a block are handed on to the next one, so the convolutions of all blocks
make one residual network, into which the scanner speaks again and again. How noisy the signals are, how much of the
grid they see and how noisy x_t is decides the spreads and modulates the features: the `Conditioner`.

The last block has a second output, the logarithm of the error's size in each voxel. So one evaluation gives image and
uncertainty, and ``(D - x_t) / sigma_t^2`` is the score of the image's distribution given the signals (Tweedie's
formula).

A volume is a batch of slices whose orientation turns from block to block, xy, xz, yz, while signals are combined with
the whole volume: the same weights serve planes of every grid and volumes.
"""

from dataclasses import asdict, dataclass
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mpi_fast.guidance import WIDTHS

VIEWS = (1.0, 4.0)  # spreads, next to r_k, under which a block sees what the signals would change
INJECTED = 2 + len(VIEWS)  # channels that enter each block: x_k, the changes, how well each voxel is measured
DESCRIPTORS = 2 + len(WIDTHS)
FIRST_SPREAD, LAST_SPREAD = 3.0, 0.4  # of the blocks at the start of training, next to sqrt(relative noise) / 2
UNSURE = 4.0  # the size of the error is within a factor exp(4) of d
PLANES = ((1, 2, 3), (2, 1, 3), (3, 1, 2))  # axes (slices, rows, columns) of a volume [., z, y, x]: xy, xz, yz


@dataclass(frozen=True)
class PosteriorConfig:
    """Widths and depths.

    Attributes
    ----------
    blocks : int
        Combinations with the signals, each with its convolutions.
    width, inner : int
        Channels at full and at half resolution.
    embedding : int
        Width of what is known of a frame beforehand, see `Conditioner`.
    """

    blocks: int = 10
    width: int = 16
    inner: int = 48
    embedding: int = 64

    def to_dict(self) -> dict[str, int]:
        """Plain numbers, as a checkpoint stores them."""
        return asdict(self)


class Signals(NamedTuple):
    """What frames say about their images, scaled to images of root-mean-square about one.

    G scanners with K frames each; at run time G = 1. Nothing is known of an image whose singular values are zero.
    """

    y: Tensor  # (G, K, R) reduced signals
    noise: Tensor  # (G, K) their noise
    singular_values: Tensor  # (G, R)
    basis: Tensor  # (G, N, R)
    square: Tensor  # (G, N, R) the basis, squared

    @classmethod
    def of(cls, y: Tensor, noise: Tensor, singular_values: Tensor, basis: Tensor) -> "Signals":
        """From what a calibration and its frames hold."""
        return cls(y, noise, singular_values, basis, basis.square())


class View(NamedTuple):
    """Mean and standard deviation of an image given the signals, (G, K, N) each."""

    mean: Tensor
    deviation: Tensor


def combine(signals: Signals, mean: Tensor, spread: Tensor, views: tuple[float, ...] = (1.0,)) -> list[View]:
    """Gaussians N(mean, (view * spread)^2 I), each combined with the signals: section 2.1 of the design, eq. 1.

    Parameters
    ----------
    signals : Signals
    mean : (G, K, N) float32
    spread : (G, K) float32
        Positive.
    views : tuple of float
        Multiples of the spread.
    """
    s, noise = signals.singular_values[:, None, :], signals.noise[..., None]
    residual = signals.y - s * (mean @ signals.basis)
    back, square = signals.basis.transpose(1, 2), signals.square.transpose(1, 2)
    found = []
    for view in views:
        wide = view * spread[..., None]
        strength = wide * s
        share = wide / (strength.square() + noise.square())
        change = (share * strength * residual) @ back
        explained = (share * strength * s) @ square
        found.append(View(mean + change, wide * (1 - explained).clamp_min(1e-6).sqrt()))
    return found


class Conditioner(nn.Module):
    """What is known of a frame before its image: spreads of all blocks, and gains and shifts of their features.

    Descriptors of a frame: its relative noise ``sigma sqrt(N) / ||S||``, the precision of x_t, and how much of the grid
    the signals see under white priors of `guidance.WIDTHS`.
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
        self.widths = [config.width, config.inner] * config.blocks
        self.modulation = nn.Linear(config.embedding, 2 * sum(self.widths))
        for layer in (self.spread, self.modulation):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        falling = torch.linspace(log(FIRST_SPREAD), log(LAST_SPREAD), config.blocks)
        self.spread.bias.data.copy_(falling)

    def forward(self, signals: Signals, seen: list[View], precision: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Spreads (G, K, blocks), and for each residual block gain and shift, (G * K, 2 * channels)."""
        voxels = signals.basis.shape[1]
        power = signals.singular_values.square().sum(dim=1, keepdim=True)
        noise = (signals.noise * (voxels / power.clamp_min(1e-12)).sqrt()).clamp(1e-4, 1e3)
        unseen = [torch.log(view.deviation / width).mean(dim=2) for view, width in zip(seen, WIDTHS, strict=True)]
        known = torch.stack([0.5 * noise.log(), 0.5 * torch.log1p(precision), *unseen], dim=2)
        hidden = self.embed(known)
        certain = (4 / noise.clamp_max(4.0) + precision).rsqrt()  # sqrt(noise) / 2, or what x_t leaves of it
        spreads = certain[..., None] * torch.exp(self.spread(hidden).clamp(-6, 6))
        return spreads, list(self.modulation(hidden).flatten(0, 1).split([2 * w for w in self.widths], dim=1))


class ResidualBlock(nn.Module):
    """``x + conv(SiLU(gain * conv(SiLU(x)) + shift))``, the identity at the start of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, width, rows, columns), and gain and shift of each channel (B, 2 * width) -> the features' shape."""
        gain, shift = modulation[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        hidden = self.first(functional.silu(x)) * (1 + gain) + shift
        out: Tensor = x + self.second(functional.silu(hidden))
        return out


class Corrector(nn.Module):
    """The convolutions of one block: at full resolution, at half, and back."""

    def __init__(self, config: PosteriorConfig, injected: int, outputs: int) -> None:
        super().__init__()
        width, inner = config.width, config.inner
        self.inject = nn.Conv2d(injected, width, 3, padding=1)
        self.fine = ResidualBlock(width)
        self.down = nn.Conv2d(width, inner, 3, stride=2, padding=1)
        self.coarse = ResidualBlock(inner)
        self.up = nn.Conv2d(inner, 4 * width, 1)
        self.head = nn.Conv2d(width, outputs, 3, padding=1)
        nn.init.zeros_(self.head.weight)

    def forward(self, injected: Tensor, features: Tensor | None, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """(B, injected, rows, columns), features of the block before, modulations -> outputs in float32, features."""
        rows, columns = injected.shape[2:]
        x = self.inject(injected)
        x = self.fine(x if features is None else features + x, fine)
        half = self.coarse(self.down(functional.silu(x)), coarse)
        x = x + functional.pixel_shuffle(self.up(functional.silu(half)), 2)[:, :, :rows, :columns]
        with torch.autocast(x.device.type, enabled=False):
            return self.head(functional.silu(x.float())), x


class PosteriorNetwork(nn.Module):
    """D(x_t; sigma_t | y) and the size of its error, for planes and volumes of any grid."""

    def __init__(self, config: PosteriorConfig) -> None:
        super().__init__()
        self.config = config
        self.conditioner = Conditioner(config)
        count = config.blocks
        self.correctors = nn.ModuleList(
            Corrector(config, INJECTED + (0 if k else 2 * len(WIDTHS)), 1 + (k == count - 1)) for k in range(count)
        )

    def forward(
        self, signals: Signals, noisy: Tensor, precision: Tensor, grid: tuple[int, int, int]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Estimate images.

        Parameters
        ----------
        signals : Signals
        noisy : (G, K, N) float32
            x_t.
        precision : (G, K) float32
            ``1 / sigma_t^2``; zero where there is no noisy image.
        grid : (nz, ny, nx)
            Number of voxels, ``nz = 1`` for planes; voxels are in MDF order, x fastest.

        Returns
        -------
        image : (G, K, N) float32
            Posterior mean; not cut at zero.
        log_error : (G, K, N) float32
            Logarithm of the size of its error.
        earlier : list of (G, K, N) float32
            What the blocks before the last one made.
        """
        groups, frames, _ = noisy.shape
        white = [combine(signals, torch.zeros_like(noisy), torch.full_like(signals.noise, w))[0] for w in WIDTHS]
        spreads, modulations = self.conditioner(signals, white, precision)
        # Before the first block nothing is known but images of root-mean-square one.
        image, certainty = torch.zeros_like(noisy), torch.ones_like(precision)
        features, earlier = None, []
        log_error = noisy
        for k, corrector in enumerate(self.correctors):
            if k:
                certainty = spreads[..., k] ** -2
            total = certainty + precision
            mean = (certainty / total)[..., None] * image + (precision / total)[..., None] * noisy
            spread = total.rsqrt()
            views = combine(signals, mean, spread, VIEWS)
            m, d = views[0]
            changes = [torch.asinh((view.mean - mean) / d) for view in views]
            shown = [mean, *changes, 0.5 * torch.log(d / spread[..., None])]
            if k == 0:
                shown += [view.mean * w**-0.5 for view, w in zip(white, WIDTHS, strict=True)]
                shown += [0.5 * torch.log(view.deviation / w) for view, w in zip(white, WIDTHS, strict=True)]
            turn = PLANES[k % 3] if grid[0] > 1 else PLANES[0]
            injected = to_slices(torch.stack(shown, dim=2).reshape(groups * frames, len(shown), *grid), turn)
            slices = len(injected) // (groups * frames)
            fine, coarse = (one.repeat_interleave(slices, dim=0) for one in modulations[2 * k : 2 * k + 2])
            flat = None if features is None else to_slices(features, turn)
            out, flat = corrector(injected, flat, fine, coarse)
            features = from_slices(flat, turn, grid)
            out = from_slices(out, turn, grid).reshape(groups, frames, -1, noisy.shape[2])
            image = m + d * out[:, :, 0]
            if k < len(self.correctors) - 1:
                earlier.append(image)
            else:
                log_error = torch.log(d) + UNSURE * torch.tanh(out[:, :, 1] / UNSURE)
        return image, log_error, earlier


def to_slices(volume: Tensor, turn: tuple[int, int, int]) -> Tensor:
    """(B, C, nz, ny, nx) -> (B * slices, C, rows, columns), for axes ``turn`` of [., z, y, x]."""
    along, rows, columns = (axis + 1 for axis in turn)
    if volume.shape[along] == 1 and turn == PLANES[0]:
        return volume.squeeze(2)
    return volume.permute(0, along, 1, rows, columns).flatten(0, 1)


def from_slices(slices: Tensor, turn: tuple[int, int, int], grid: tuple[int, int, int]) -> Tensor:
    """The inverse of `to_slices`."""
    if grid[0] == 1:
        return slices.unsqueeze(2)
    along, rows, columns = (axis + 1 for axis in turn)
    stacked = slices.reshape(-1, grid[along - 2], *slices.shape[1:])  # (B, along, C, rows, columns)
    places = (0, along, 1, rows, columns)
    return stacked.permute(*(places.index(axis) for axis in range(5)))
