"""Training data of the network: scanners of every kind, on planes and volumes of every size.

A `Setting` is one grid with its scanners and phantoms. Each batch comes from one setting and has about the same number
of voxels. Training is denoising score matching given the signals. Half of the frames have no noisy image in addition to
their signals, the others have one of any noise level. Some scanners measure nothing, so that the network can also be
used as a plain denoiser.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from math import log, prod

import numpy as np
import torch
from torch import Tensor

from mpi_fast.phantoms import TRAINING_FAMILIES, TRAINING_VOLUMES, WIDE_FAMILIES, Array, generate
from mpi_fast.training.combination import Signals
from mpi_fast.training.data import draw_frames, turned_frames
from mpi_fast.training.operators import Operators, Reduced, reduced_abstract, reduced_scanner, stack, workers

VOXELS = 40 * 361  # approximate number in a batch
GROUPS = 8  # largest number of scanners in a batch
STANDARD = 19, 19
ABSTRACT_EVERY = 6, 3  # one of so many scanners is an abstract operator: on the standard grid, on others
ALONE = 0.5  # share of frames without a noisy image
SIGMA = 0.02, 10.0  # range of noise levels of the other frames
BLIND = 1 / 8  # share of scanners that measure nothing
CONFINED, EXTENT = 0.6, (0.35, 0.95)  # share of phantoms confined to a box, and its sides relative to the grid
ALIKE = 2  # phantoms of each family that share a box
EMPTY_PHANTOM = 0.02  # smallest mean square of a phantom, relative to the median


@dataclass(frozen=True)
class Mixture:
    """Amounts of training data; these numbers and a seed determine the data.

    Attributes
    ----------
    scanners, phantoms : int
        Numbers for the standard grid, 19 x 19, which has the share ``standard`` of all batches.
    planes, volumes : int
        Numbers of other grids; volumes have the share ``volume`` of all batches.
    each, drawn : int
        Number of scanners, and largest number of phantoms, of each of these grids.
    """

    scanners: int = 320
    phantoms: int = 60_000
    planes: int = 48
    volumes: int = 16
    each: int = 6
    drawn: int = 4000
    standard: float = 0.3
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
    """Inputs of `PosteriorNetwork` and the true images: (G, K, N), or (G, K) for the precision."""

    signals: Signals
    noisy: Tensor
    precision: Tensor
    grid: tuple[int, int, int]
    image: Tensor

    @property
    def frames(self) -> int:
        """Total number of frames, G K."""
        return self.precision.numel()


def random_plane(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """A grid (ny, nx) of 5 to 72 voxels a side, and the sides of its voxels relative to their width."""
    longest = int(rng.integers(8, 73))
    other = longest if rng.random() < 0.4 else max(5, round(longest * rng.uniform(0.3, 1.0)))
    grid = (longest, other) if rng.random() < 0.5 else (other, longest)
    return grid, (_aspect(rng), 1.0)


def random_volume(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """A grid (nz, ny, nx) of 5 to 24 voxels a side, at most 8000, and the voxels' sides relative to their width."""
    if rng.random() < 0.25:
        return (19, 19, 19), (_aspect(rng), 1.0, 1.0)
    while True:
        longest = int(np.exp(rng.uniform(log(8), log(25))))
        grid = tuple(longest if rng.random() < 0.5 else max(5, round(longest * rng.uniform(0.4, 1.0))) for _ in "zyx")
        if prod(grid) <= 8000:
            return grid, (_aspect(rng), _aspect(rng), 1.0)


def _aspect(rng: np.random.Generator) -> float:
    return 1.0 if rng.random() < 0.6 else float(np.exp(rng.uniform(-log(3), log(3))))


def make_settings(mixture: Mixture, seed: int, processes: int = 1) -> list[Setting]:
    """Draw grids, scanners and phantoms; takes about ten minutes of one processor."""
    rng = np.random.default_rng([seed, 1])
    square, planes = (STANDARD, (1.0, 1.0)), [random_plane(rng) for _ in range(mixture.planes)]
    volumes = [random_volume(rng) for _ in range(mixture.volumes)]
    with workers(processes) as pool:
        plans = [_planned(pool, square, mixture.scanners, mixture.phantoms, (seed, 0))]
        for index, place in enumerate([*planes, *volumes]):
            phantoms = min(mixture.drawn, max(300, 10**6 // prod(place[0])))
            plans.append(_planned(pool, place, mixture.each, phantoms, (seed, 1 + index)))
        volume = mixture.volume if volumes else 0.0
        plane = 1 - mixture.standard - volume if planes else 0.0
        shares = [mixture.standard]
        shares += [plane / len(planes) for _ in planes] + [volume / len(volumes) for _ in volumes]
        return [plan.made(share) for plan, share in zip(plans, shares, strict=True)]


@dataclass(frozen=True)
class _Plan:
    """A setting in preparation by other processes."""

    grid: tuple[int, int, int]
    operators: list["Future[Reduced]"]
    phantoms: list["Future[Array]"]

    def made(self, share: float) -> Setting:
        phantoms = torch.from_numpy(np.concatenate([one.result() for one in self.phantoms]))
        size = phantoms.square().flatten(1).mean(dim=1)
        kept = phantoms[size > EMPTY_PHANTOM * size.median()].reshape(-1, *self.grid)
        return Setting(self.grid, stack([one.result() for one in self.operators]), kept, share)


def _planned(
    pool: Executor,
    place: tuple[tuple[int, ...], tuple[float, ...]],
    scanners: int,
    phantoms: int,
    seed: tuple[int, int],
) -> _Plan:
    """A setting's parts: most scanners have a field-free point, the others are abstract."""
    grid, voxel = place
    every = ABSTRACT_EVERY[0 if grid == STANDARD else 1]
    operators = [
        pool.submit(reduced_scanner if (index + 1) % every else reduced_abstract, (*seed, index), grid, voxel)
        for index in range(scanners)
    ]
    parts = -(-phantoms // 2000)
    drawn = [pool.submit(_phantoms, phantoms // parts, grid, voxel, (*seed, part)) for part in range(parts)]
    nz, ny, nx = (1,) * (3 - len(grid)) + grid
    return _Plan((nz, ny, nx), operators, drawn)


def _phantoms(count: int, grid: tuple[int, ...], voxel: tuple[float, ...], seed: Sequence[int]) -> Array:
    """Phantoms (count, *grid), `CONFINED` of them within a random box near the grid's middle.

    In practice objects lie where the scanner is sensitive, and the calibrated grid is larger. A network trained only on
    objects that fill the grid would expect something wherever nothing is measured.
    """
    families = [*TRAINING_FAMILIES, *WIDE_FAMILIES] if len(grid) == 2 else [*TRAINING_VOLUMES]
    rng, aspect = np.random.default_rng(seed), [side / voxel[-1] for side in voxel[:-1]]
    images, sides = np.zeros((count, *grid), dtype=np.float32), np.asarray(grid)
    for start in range(0, count, ALIKE * len(families)):
        part = images[start : start + ALIKE * len(families)]
        box = sides
        if rng.random() < CONFINED:
            box = np.maximum(4, np.rint(sides * rng.uniform(*EXTENT))).astype(int)
        corner = np.rint((sides - box) * rng.normal(0.5, 0.2, len(grid)).clip(0, 1)).astype(int)
        place = tuple(slice(first, first + size) for first, size in zip(corner.tolist(), box.tolist(), strict=True))
        part[(slice(None), *place)] = generate(families, len(part), tuple(box.tolist()), rng, aspect)
    return images


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
    """Frames of one setting; half of them have a noisy image in addition to their signals."""
    voxels = prod(setting.grid)
    wanted = max(1, round(VOXELS / voxels))
    groups = min(GROUPS, len(setting.operators), wanted)
    # A volume has three axes; the first axis of a plane has length one.
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
