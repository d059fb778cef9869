"""Random scanners to train with: simulated, calibrated with the code that users run, and reduced to small matrices.

Each has its own particles, fields, receive chain and noise. It is calibrated from a noisy matrix, while its signals
come from the true one. What of it a frame needs is small:

    y = T x + sigma L xi          T = U^T A_true (R, N),  L L^T = covariance of the reduced noise
    ||residual||^2 = x^T E x + sigma^2 chi^2(2M - R)
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.noise import complex_noise, row_profile
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import ReceiveChain, Scanner

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
        *scanner.plane,
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
