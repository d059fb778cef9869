"""What the posterior network is trained on: scanners of every kind, on planes and volumes of every size.

A `Setting` is one grid with its scanners and phantoms. A batch comes from one of them: as many frames as make about the
same number of voxels, in denoising score matching given the signals: half of the frames have no noisy image beside
their signals, the others one of any noise level; now and then the scanner measures nothing, so that the network stays
an ordinary denoiser, too.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from math import log, prod

import numpy as np
import torch
from torch import Tensor

from mpi_fast.phantoms import generate
from mpi_fast.training.data import BLIND, SIGMA, draw_frames, turned_frames
from mpi_fast.training.operators import Operators, Reduced, reduced_abstract, reduced_scanner, stack, workers
from mpi_fast.training.posterior import Signals

VOXELS = 40 * 361  # of a batch, about
GROUPS = 8  # scanners in a batch, at most
ALONE = 0.5  # share of frames without a noisy image
EMPTY_PHANTOM = 0.02  # of a phantom's mean square, next to the median one: less is too little to see


@dataclass(frozen=True)
class Mixture:
    """How much of what is drawn; a seed and these numbers decide all of it.

    Attributes
    ----------
    scanners, phantoms : int
        Of the standard grid, 19 x 19; it makes up ``standard`` of all batches.
    planes, volumes : int
        How many other grids; volumes make up ``volume`` of all batches.
    each : int
        Scanners of each of them.
    """

    scanners: int = 320
    phantoms: int = 60_000
    planes: int = 48
    volumes: int = 24
    each: int = 6
    standard: float = 0.45
    volume: float = 0.2


@dataclass(frozen=True)
class Setting:
    """A grid (nz, ny, nx), its scanners, phantoms (P, nz, ny, nx) to choose from, and its share of the batches."""

    grid: tuple[int, int, int]
    operators: Operators
    phantoms: Tensor
    share: float


@dataclass(frozen=True)
class PosteriorBatch:
    """What `PosteriorNetwork` takes, and the image behind it: (G, K, N), or (G, K) for the precision."""

    signals: Signals
    noisy: Tensor
    precision: Tensor
    grid: tuple[int, int, int]
    image: Tensor

    @property
    def frames(self) -> int:
        """G K."""
        return self.precision.numel()


def random_plane(rng: np.random.Generator) -> tuple[tuple[int, int], float]:
    """A grid (ny, nx) of 5 to 72 voxels a side and the height over width of its voxels."""
    longest = int(np.exp(rng.uniform(log(8), log(72))))
    other = longest if rng.random() < 0.4 else max(5, round(longest * rng.uniform(0.3, 1.0)))
    sides = (longest, other) if rng.random() < 0.5 else (other, longest)
    aspect = 1.0 if rng.random() < 0.6 else float(np.exp(rng.uniform(-log(3), log(3))))
    return sides, aspect


def make_settings(mixture: Mixture, seed: int, processes: int = 1) -> list[Setting]:
    """Draw grids, scanners and phantoms: some minutes of one processor."""
    rng = np.random.default_rng([seed, 1])
    with workers(processes) as pool:
        standard = _plane(pool, mixture.scanners, mixture.phantoms, (19, 19), 1.0, (seed, 0))
        others = [
            _plane(pool, mixture.each, max(500, min(4000, 10**6 // prod(grid))), grid, aspect, (seed, 1 + index))
            for index, (grid, aspect) in enumerate(random_plane(rng) for _ in range(mixture.planes))
        ]
        share = (1 - mixture.standard - mixture.volume) / max(len(others), 1)
        plans = [(mixture.standard, standard), *((share, plan) for plan in others)]
        return [plan.made(share) for share, plan in plans]


@dataclass(frozen=True)
class _Plan:
    """A setting that other processes are making."""

    grid: tuple[int, int, int]
    operators: list["Future[Reduced]"]
    phantoms: list["Future[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]"]

    def made(self, share: float) -> Setting:
        phantoms = torch.from_numpy(np.concatenate([one.result() for one in self.phantoms]))
        size = phantoms.square().flatten(1).mean(dim=1)
        kept = phantoms[size > EMPTY_PHANTOM * size.median()].reshape(-1, *self.grid)
        return Setting(self.grid, stack([one.result() for one in self.operators]), kept, share)


def _plane(
    pool: Executor, scanners: int, phantoms: int, grid: tuple[int, int], aspect: float, seed: tuple[int, int]
) -> _Plan:
    """A plane's setting: two scanners in three have a field-free point, the others are abstract."""
    operators = [
        pool.submit(reduced_abstract, (*seed, index), grid, (aspect, 1.0))
        if index % 3 == 2
        else pool.submit(reduced_scanner, (*seed, index), grid, aspect)
        for index in range(scanners)
    ]
    parts = -(-phantoms // 4000)
    drawn = [pool.submit(_phantoms, phantoms // parts, grid, aspect, (*seed, part)) for part in range(parts)]
    return _Plan((1, *grid), operators, drawn)


def _phantoms(
    count: int, grid: tuple[int, int], aspect: float, seed: Sequence[int]
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    from mpi_fast.phantoms import TRAINING_FAMILIES

    return generate(list(TRAINING_FAMILIES), count, grid, np.random.default_rng(seed), aspect)


def posterior_batches(settings: Sequence[Setting], seed: int, device: torch.device) -> Iterator[PosteriorBatch]:
    """Endless batches, each from one of the settings, according to their shares."""
    settings = [replace(s, operators=s.operators.to(device), phantoms=s.phantoms.to(device)) for s in settings]
    shares = torch.tensor([setting.share for setting in settings])
    chooser = torch.Generator().manual_seed(seed)
    rng = torch.Generator(device=device)
    rng.manual_seed(seed + 1)
    while True:
        yield draw_posterior(settings[int(torch.multinomial(shares, 1, generator=chooser))], rng)


def draw_posterior(setting: Setting, rng: torch.Generator) -> PosteriorBatch:
    """Frames of one setting with, for half of them, a noisy image beside their signals."""
    voxels = prod(setting.grid)
    wanted = max(1, round(VOXELS / voxels))
    groups = min(GROUPS, len(setting.operators), wanted)
    # A volume has its three axes; of a plane the first is none.
    axes = setting.grid if setting.grid[0] > 1 else setting.grid[1:]
    frames = draw_frames(setting.operators, setting.phantoms, groups, max(1, wanted // groups), rng)
    frames = turned_frames(frames, axes, rng)
    device, shape = frames.image.device, frames.noise.shape

    def uniform(*size: int) -> Tensor:
        return torch.rand(*size, generator=rng, device=device)

    sees = uniform(groups, 1) >= BLIND
    sigma = torch.exp(log(SIGMA[0]) + log(SIGMA[1] / SIGMA[0]) * uniform(*shape))
    alone = (uniform(*shape) < ALONE) & sees
    normal = torch.randn(frames.image.shape, generator=rng, device=device)
    noisy = (frames.image + sigma[..., None] * normal) * ~alone[..., None]
    signals = Signals.of(frames.y * sees[..., None], frames.noise, frames.singular_values * sees, frames.basis)
    return PosteriorBatch(signals, noisy, sigma**-2 * ~alone, setting.grid, frames.image)
