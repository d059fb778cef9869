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

VIEWS = (4.0,)  # spreads, next to r_k, under which a block also sees what the signals would change
INJECTED = 3 + len(VIEWS)  # channels that enter each block: x_k, the changes, how well each voxel is measured
DESCRIPTORS = 2 + len(WIDTHS)
FIRST_SPREAD, LAST_SPREAD = 3.0, 0.4  # of the blocks at the start of training, next to sqrt(relative noise) / 2
# Of `white_views`, to be of about one size: means of wide priors are noisy, and deviations count by their square root.
FIRST_SCALES = (*(width**-0.5 for width in WIDTHS), *(0.5 for _ in WIDTHS))
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


def combine(signals: Signals, mean: Tensor, spread: Tensor, views: tuple[float, ...] = ()) -> tuple[View, Tensor]:
    """A Gaussian N(mean, spread^2 I), combined with the signals: see `guidance`.

    Parameters
    ----------
    signals : Signals
    mean : (G, K, N) float32
    spread : (G, K) float32
        Positive.
    views : tuple of float
        Multiples of the spread under which to see, too, what the signals would change.

    Returns
    -------
    view : View
    changes : (G, K, 1 + views, N)
        Its mean's difference from ``mean``, and then those of the wider or narrower views.
    """
    s, noise = signals.singular_values[:, None, None, :], signals.noise[:, :, None, None]
    wide = spread[:, :, None, None] * mean.new_tensor((1.0, *views))[:, None]
    strength = wide * s
    gain = wide * strength / (strength * strength + noise * noise)  # (G, K, 1 + views, R)
    residual = signals.y - signals.singular_values[:, None, :] * (mean @ signals.basis)
    changes = (gain * residual[:, :, None]).flatten(1, 2) @ signals.basis.transpose(1, 2)
    changes = changes.reshape(*gain.shape[:3], -1)
    explained = (gain[:, :, 0] * signals.singular_values[:, None, :]) @ signals.square.transpose(1, 2)
    deviation = spread[..., None] * (1 - explained).clamp_min(1e-6).sqrt()
    return View(mean + changes[:, :, 0], deviation), changes


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

    def forward(self, signals: Signals, unseen: Tensor, precision: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Spreads and modulations of frames.

        Parameters
        ----------
        signals : Signals
        unseen : (G, K, WIDTHS, N)
            Logarithm of what the signals leave of the deviation of white images.
        precision : (G, K)
            Of x_t; zero where there is none.

        Returns
        -------
        spreads : (G, K, blocks)
        modulations : list of (G * K, 2 * channels, 1, 1)
            Gain and shift of each residual block.
        """
        voxels = signals.basis.shape[1]
        power = signals.singular_values.square().sum(dim=1, keepdim=True)
        noise = (signals.noise * (voxels / power.clamp_min(1e-12)).sqrt()).clamp(1e-4, 1e3)
        known = torch.stack([0.5 * noise.log(), 0.5 * torch.log1p(precision)], dim=2)
        hidden = self.embed(torch.cat([known, unseen.mean(dim=3)], dim=2))
        certain = (4 / noise.clamp_max(4.0) + precision).rsqrt()  # sqrt(noise) / 2, or what x_t leaves of it
        spreads = certain[..., None] * torch.exp(self.spread(hidden).clamp(-6, 6))
        modulations = self.modulation(hidden).flatten(0, 1)[:, :, None, None]
        return spreads, list(modulations.split([2 * width for width in self.widths], dim=1))


class ResidualBlock(nn.Module):
    """``x + conv(SiLU(gain * conv(SiLU(x)) + shift))``, the identity at the start of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """(B, width, rows, columns), and gain and shift of each channel (B, 2 * width, 1, 1) -> the features' shape."""
        gain, shift = modulation.to(x.dtype).chunk(2, dim=1)
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
        self,
        signals: Signals,
        grid: tuple[int, int, int],
        noisy: Tensor | None = None,
        precision: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
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
        image : (G, K, N) float32
            Posterior mean; not cut at zero.
        log_error : (G, K, N) float32
            Logarithm of the size of its error.
        earlier : list of (G, K, N) float32
            What the blocks before the last one made.
        """
        groups, frames, _ = signals.y.shape
        voxels = signals.basis.shape[1]
        # Before the first block nothing is known but images of root-mean-square one.
        image = signals.y.new_zeros(groups, frames, voxels)
        certainty = torch.ones_like(signals.noise)
        white = white_views(signals)
        spreads, modulations = self.conditioner(signals, white[:, :, len(WIDTHS) :], _or_none(precision, certainty))
        features, earlier = None, []
        log_error = image
        for k, corrector in enumerate(self.correctors):
            if k:
                certainty = spreads[..., k] ** -2
            mean, spread = image, certainty.rsqrt()
            if noisy is not None and precision is not None:
                total = certainty + precision
                mean = (certainty / total)[..., None] * image + (precision / total)[..., None] * noisy
                spread = total.rsqrt()
            (m, d), changes = combine(signals, mean, spread, VIEWS)
            shown = [mean[:, :, None], torch.asinh(changes / d[:, :, None])]
            shown.append(0.5 * torch.log(d / spread[..., None])[:, :, None])
            if k == 0:
                shown.append(white * torch.tensor(FIRST_SCALES).to(white)[:, None])
            turn = PLANES[k % 3] if grid[0] > 1 else PLANES[0]
            slices = grid[turn[0] - 1]
            injected = torch.cat(shown, dim=2)
            injected = to_slices(injected.reshape(groups * frames, -1, *grid), turn)
            fine, coarse = modulations[2 * k : 2 * k + 2]
            if slices > 1:
                fine, coarse = fine.repeat_interleave(slices, dim=0), coarse.repeat_interleave(slices, dim=0)
            flat = None if features is None else to_slices(features, turn)
            out, flat = corrector(injected, flat, fine, coarse)
            features = from_slices(flat, turn, grid)
            out = from_slices(out, turn, grid).reshape(groups, frames, -1, voxels)
            image = m + d * out[:, :, 0]
            if k < len(self.correctors) - 1:
                earlier.append(image)
            else:
                log_error = torch.log(d) + UNSURE * torch.tanh(out[:, :, 1] / UNSURE)
        return image, log_error, earlier


def _or_none(precision: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if precision is None else precision


def white_views(signals: Signals) -> Tensor:
    """What the signals alone say of white images of `guidance.WIDTHS`, (G, K, 2 * WIDTHS, N).

    First the posterior means, then the logarithms of what is left of the deviations.
    """
    s, noise = signals.singular_values[:, None, None, :], signals.noise[:, :, None, None]
    widths = signals.y.new_tensor(WIDTHS)[:, None]
    strength = widths * s
    gain = widths * strength / (strength * strength + noise * noise)
    back, square = signals.basis.transpose(1, 2), signals.square.transpose(1, 2)
    means = (gain * signals.y[:, :, None]).flatten(1, 2) @ back
    explained = (gain * s).flatten(1, 2) @ square
    left = 0.5 * torch.log((1 - explained).clamp_min(1e-6))
    return torch.cat([one.reshape(*gain.shape[:3], -1) for one in (means, left)], dim=2)


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
