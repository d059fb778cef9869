"""Training data: random phantoms seen by random scanners, reduced exactly as a real frame is.

A network that knows one scanner is worth little, so each training frame comes from one of a few hundred simulated
scanners (`random_scanner`) with their own particles, fields, receive chain and noise. Each is calibrated with the code
that users run, from a noisy matrix, while its signals come from the true one. What a frame then needs is small:

    y = T x + sigma L xi          T = U^T A_true (R, N),  L L^T = covariance of the reduced noise
    ||residual||^2 = x^T E x + sigma^2 chi^2(2M - R)

so a batch of thousands of signals is a few products of small matrices on any device.
"""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.guidance import DETECTION, SIGNAL_PER_IMAGE
from mpi_fast.noise import complex_noise, row_profile
from mpi_fast.phantoms import TRAINING_FAMILIES, generate
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import ReceiveChain, Scanner

SNR_DB = (-5.0, 45.0)
EMPTY, NEAR_EMPTY = 0.04, 0.06  # shares of frames without particles, and with fewer than the noise shows
SIGMA = (0.02, 10.0)
DRAWS = 2  # noise levels drawn for each frame
PURE_NOISE = 0.25  # share of samples at the largest sigma: the first step of every reconstruction
BACKGROUND_EVERY = 19  # voxels between two blocks of background frames of a calibration


def random_scanner(rng: np.random.Generator, grid: tuple[int, int] = (19, 19)) -> Scanner:
    """A plausible 2D scanner and tracer: what users' systems may look like."""
    voxel = float(rng.uniform(1e-3, 3e-3))
    voxel_size = voxel, voxel
    gradient = float(np.exp(rng.uniform(np.log(0.7), np.log(2.0)))) * 2e-3 / voxel
    # The trajectory covers between 45 % and 105 % of the grid, in x and y nearly alike.
    extent = np.asarray(grid[::-1]) * voxel / 2
    coverage = rng.uniform(0.45, 1.05) * rng.uniform(0.85, 1.15, 2)
    amplitude = gradient * coverage * extent
    coupling = np.diag(np.exp(rng.normal(0.0, 0.3, 2)) * 50.0) + rng.normal(0.0, 1.0, (2, 2))
    z_channel = rng.normal(0.0, 2.0, (1, 2))
    dividers = [(102, 96), (96, 102), (96, 90), (102, 99), (64, 60)][rng.integers(5)]
    return Scanner(
        grid=grid,
        voxel_size=voxel_size,
        gradient=(-gradient, -gradient * float(rng.choice([1.0, 1.0, -2.0]))),
        drive_amplitude=(float(amplitude[0]), float(amplitude[1])),
        dividers=dividers,
        core_diameter=float(rng.uniform(17e-9, 30e-9)),
        saturation_magnetisation=float(rng.uniform(420e3, 480e3)),
        sub_voxels=2,
        receive=ReceiveChain(
            coupling=tuple((float(a), float(b)) for a, b in np.concatenate([coupling, z_channel])),
            resonance=tuple(float(f) for f in np.exp(rng.uniform(np.log(0.4e6), np.log(3e6), 3))),
            quality=float(rng.uniform(0.7, 4.0)),
            delay=tuple(float(d) for d in rng.uniform(0.0, 2e-6, 3)),
        ),
    )


def random_calibration(
    rng: np.random.Generator, scanner: Scanner
) -> tuple[Calibration, NDArray[np.complex64], NDArray[np.float64]]:
    """Measure a scanner's system matrix with noise and calibrate from it.

    Returns
    -------
    calibration : Calibration
        From the noisy matrix and its background frames.
    truth : (M, N) complex64
        The selected rows without noise.
    deviation : (M,) float64
        True relative noise deviation of the selected rows in measurements: that of the calibration, or another.
    """
    truth = scanner.system_matrix()
    frequencies = scanner.frequencies
    drive = tuple(scanner.base_frequency / divider for divider in scanner.dividers)
    profile = row_profile(frequencies, drive, knee=float(np.exp(rng.uniform(np.log(10e3), np.log(400e3)))))
    coloured = np.broadcast_to(profile ** rng.uniform(0.0, 1.0), truth.shape[:2])
    strength = np.linalg.norm(truth, axis=2) / np.sqrt(truth.shape[2])
    strength = np.where(frequencies >= 80e3, strength, 0.0)
    wanted_rows = int(np.exp(rng.uniform(np.log(120), np.log(1200))))
    level = np.sort((strength / coloured).ravel())[::-1][min(wanted_rows, strength.size - 1)] / 5.0
    deviation = coloured * max(level, 1e-9 * float(strength.max()))

    voxels = truth.shape[2]
    size = int(rng.integers(1, 5))  # background frames in each block
    blocks = np.arange(voxels + (voxels // BACKGROUND_EVERY + 1) * size) % (BACKGROUND_EVERY + size) < size
    order = np.flatnonzero(~blocks)[:voxels], np.flatnonzero(blocks)
    noise = complex_noise((voxels + len(order[1]), *deviation.shape), rng) * deviation
    drift = rng.normal(0.0, 2.0) * deviation * np.exp(2j * np.pi * rng.random(deviation.shape))
    noise = noise.transpose(1, 2, 0) + drift[..., None]
    calibration = Calibration.from_arrays(
        truth + noise[..., :voxels],
        frequencies,
        scanner.grid,
        scanner.field_of_view,
        background=noise[..., voxels:],
        order=order,
        rows=RowFilter(snr_threshold=float(rng.uniform(2.0, 8.0))),
    )
    selected = deviation[calibration.selection]
    measured = [selected, np.ones_like(selected), selected * np.exp(rng.normal(0.0, 0.5, len(selected)))]
    return calibration, truth[calibration.selection], measured[rng.choice(3, p=[0.5, 0.35, 0.15])]


@dataclass
class ReducedScanners:
    """Reduced scanners, stacked and padded with zeros to a common rank R, all float32 tensors on one device.

    Attributes
    ----------
    singular_values, basis : (P, R), (P, N, R)
        S and V of each calibration.
    signal : (P, R, N)
        T: the reduced signal of an image, by the true system matrix.
    noise_factor : (P, R, R)
        L.
    mismatch : (P, N, N)
        E: the energy of an image's signal outside the calibration's range.
    rank, freedom : (P,)
        R and 2M - R of each.
    """

    singular_values: Tensor
    basis: Tensor
    signal: Tensor
    noise_factor: Tensor
    mismatch: Tensor
    rank: Tensor
    freedom: Tensor

    def to(self, device: torch.device) -> "ReducedScanners":
        """On another device."""
        return ReducedScanners(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def __len__(self) -> int:
        return len(self.rank)


def reduced_scanner(seed: tuple[int, int], grid: tuple[int, int]) -> dict[str, NDArray[np.float32]]:
    """One random scanner as `ReducedScanners` needs it, unpadded."""
    rng = np.random.default_rng(seed)
    while True:
        try:
            calibration, truth, deviation = random_calibration(rng, random_scanner(rng, grid))
            break
        except InputError:  # a scanner so bad that nothing of it rises above its noise
            continue
    whitened = truth * calibration.weights[:, None]
    stacked = np.concatenate([whitened.real, whitened.imag])
    unwhitened = calibration.projection / calibration.weights
    u = np.concatenate([unwhitened.real, -unwhitened.imag], axis=1).T  # (2M, R)
    spread = np.tile(deviation * calibration.weights, 2)
    spread = spread / np.sqrt(np.mean(spread**2))
    covariance = (u.T * spread**2) @ u
    signal = u.T @ stacked
    outside = stacked - u @ signal
    return {
        "singular_values": calibration.singular_values,
        "basis": calibration.basis,
        "signal": signal.astype(np.float32),
        "noise_factor": np.linalg.cholesky(covariance).astype(np.float32),
        "mismatch": (outside.T @ outside).astype(np.float32),
        "rank": np.float32(calibration.rank),
        "freedom": np.float32(len(stacked) - calibration.rank),
    }


def make_scanners(count: int, seed: int, grid: tuple[int, int], workers: int = 2) -> ReducedScanners:
    """Simulate and calibrate ``count`` random scanners; scanner i depends on (seed, i) alone."""
    seeds = [(seed, index) for index in range(count)]
    # One thread each: small matrices are no work for several, and they would wait for each other.
    with ProcessPoolExecutor(workers, initializer=threadpool_limits, initargs=(1,)) as pool:
        each = list(pool.map(reduced_scanner, seeds, [grid] * count, chunksize=4))
    rank = int(max(one["rank"] for one in each))

    def stack(name: str, padded: tuple[int, ...]) -> Tensor:
        arrays = [one[name] for one in each]
        widths = [[(0, rank - a.shape[d] if d in padded else 0) for d in range(a.ndim)] for a in arrays]
        return torch.from_numpy(np.stack([np.pad(a, w) for a, w in zip(arrays, widths, strict=True)]))

    return ReducedScanners(
        singular_values=stack("singular_values", (0,)),
        basis=stack("basis", (1,)),
        signal=stack("signal", (0,)),
        noise_factor=stack("noise_factor", (0, 1)),
        mismatch=stack("mismatch", ()),
        rank=torch.tensor([float(one["rank"]) for one in each]),
        freedom=torch.tensor([float(one["freedom"]) for one in each]),
    )


@dataclass(frozen=True)
class Batch:
    """F frames with D draws of sampler noise each: what `ScoreNetwork` takes, and the target.

    Shapes: condition (F, 2, ny, nx), image (F * D, 3, ny, nx), sigma (F * D,), target (F * D, 1, ny, nx).
    """

    condition: Tensor
    image: Tensor
    sigma: Tensor
    target: Tensor


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


def draw_frames(scanners: ReducedScanners, phantoms: Tensor, groups: int, frames: int, rng: torch.Generator) -> Frames:
    """Signals of random phantoms through ``groups`` random scanners, ``frames`` each.

    Parameters
    ----------
    scanners : ReducedScanners
        To choose from.
    phantoms : (P, ny, nx)
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
    missed = ((x @ scanners.mismatch[which]) * x).sum(-1)
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
    noise = (level.square() * fluctuation.clamp_min(0.1) + missed / freedom).sqrt()

    # The frame's scale (see `guidance.signal_scale`).
    signal_energy = y.square().sum(-1) - rank * noise.square()
    signal_energy = torch.maximum(signal_energy, DETECTION * (2 * rank).sqrt() * noise.square())
    scale = (signal_energy / s.square().sum(-1, keepdim=True)).sqrt() / SIGNAL_PER_IMAGE
    return Frames(y / scale[..., None], noise / scale, s, v, x / scale[..., None])


def draw_batch(scanners: ReducedScanners, phantoms: Tensor, groups: int, frames: int, rng: torch.Generator) -> Batch:
    """`draw_frames` as input and target of the score network."""
    device = phantoms.device
    ny, nx = phantoms.shape[1:]
    drawn = draw_frames(scanners, phantoms, groups, frames, rng)
    x, y, noise, s, v = drawn.image, drawn.y, drawn.noise, drawn.singular_values, drawn.basis

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng, device=device)

    # Denoising score matching, given the signals: several noise levels of each frame share its condition.
    count = frames * DRAWS
    log_sigma = np.log(SIGMA[0]) + np.log(SIGMA[1] / SIGMA[0]) * uniform(groups, count)
    sigma = torch.where(uniform(groups, count) < PURE_NOISE, torch.full_like(log_sigma, SIGMA[1]), log_sigma.exp())
    repeated = [t.repeat_interleave(DRAWS, dim=1) for t in (x, y, noise)]
    start = repeated[0] + sigma[..., None] * torch.randn(groups, count, ny * nx, generator=rng, device=device)
    shrink, spread = 1 / (1 + sigma.square()), sigma * (1 + sigma.square()).rsqrt()
    estimate, deviation = combine(repeated[1], s, v, repeated[2], shrink[..., None] * start, spread)
    prior = combine(y, s, v, noise, torch.zeros_like(x), torch.ones_like(noise))

    image = torch.stack([estimate, deviation, start, repeated[0]], dim=2).reshape(groups, count, 4, ny, nx)
    condition = torch.stack(prior, dim=2).reshape(groups, frames, 2, ny, nx)
    turns = torch.rand(groups, 3, generator=rng, device=device) < 0.5
    image, condition = _turned(image, turns).flatten(0, 1), _turned(condition, turns).flatten(0, 1)
    return Batch(condition, image[:, :3], sigma.reshape(-1), image[:, 3:])


def turned_frames(frames: Frames, grid: tuple[int, int], rng: torch.Generator) -> Frames:
    """The same signals of flipped and transposed scanners and images: what `draw_batch` does to its images."""
    groups, count, voxels = frames.image.shape
    turns = torch.rand(groups, 3, generator=rng, device=frames.image.device) < 0.5
    stacked = torch.cat([frames.image, frames.basis.transpose(1, 2)], dim=1).reshape(groups, -1, *grid)
    stacked = _turned(stacked, turns).reshape(groups, -1, voxels)
    image, basis = stacked[:, :count], stacked[:, count:].transpose(1, 2)
    return replace(frames, image=image, basis=basis)


def _random_images(phantoms: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Phantoms, one in four laid over another one, with random amplitude."""
    device = phantoms.device
    first, second = torch.randint(len(phantoms), (2, count), generator=rng, device=device)
    share = torch.rand(count, 1, 1, generator=rng, device=device)
    over = (torch.rand(count, 1, 1, generator=rng, device=device) < 0.25) * share
    amplitude = torch.exp(torch.rand(count, 1, 1, generator=rng, device=device) * 3.0 - 2.0)
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


def batches(scanners: ReducedScanners, phantoms: Tensor, groups: int, frames: int, seed: int) -> Iterator[Batch]:
    """Endless batches of ``groups * frames`` frames."""
    rng = torch.Generator(device=phantoms.device)
    rng.manual_seed(seed)
    while True:
        yield draw_batch(scanners, phantoms, groups, frames, rng)


def frame_batches(scanners: ReducedScanners, phantoms: Tensor, groups: int, frames: int, seed: int) -> Iterator[Frames]:
    """Endless batches of `Frames`, for methods that take the signals as they are."""
    rng = torch.Generator(device=phantoms.device)
    rng.manual_seed(seed)
    ny, nx = phantoms.shape[1:]
    while True:
        yield turned_frames(draw_frames(scanners, phantoms, groups, frames, rng), (ny, nx), rng)
