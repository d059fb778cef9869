"""Random scanners for training, simulated and calibrated by the code that users run.

Each scanner has different particles, fields, receive chain and noise. It is calibrated from a noisy matrix, while its
signals are computed with the true one.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.noise import complex_noise, row_profile
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import ReceiveChain, Scanner

BACKGROUND_EVERY = 19  # voxels between two blocks of background frames of a calibration
# Dividers to choose from and base frequency in Hz, by number of axes. Real trajectories in three dimensions have
# periods of 50 000 samples; shorter ones are as good for training, and their matrices are small.
DIVIDERS: dict[int, tuple[list[tuple[int, ...]], float]] = {
    2: ([(102, 96), (96, 102), (96, 90), (102, 99), (64, 60)], 2.5e6),
    3: ([(28, 27, 24), (27, 24, 28), (24, 21, 20), (22, 20, 24)], 0.75e6),
}
ROWS = {2: (120, 1200), 3: (200, 1000)}  # range of the number of rows above the calibration's noise, by number of axes
DEAD_CHANNEL = 0.03  # share of scanners that lose a receive channel after their calibration


def random_scanner(
    rng: np.random.Generator, grid: tuple[int, ...] = (19, 19), voxel: tuple[float, ...] | None = None
) -> Scanner:
    """A plausible scanner of planes or volumes, with its tracer, similar to those of users.

    Parameters
    ----------
    rng : numpy Generator
    grid : (ny, nx) or (nz, ny, nx)
    voxel : tuple of float, optional
        Sides of a voxel relative to its width, in the grid's order; a square or a cube by default.
    """
    axes = len(grid)
    sides = np.asarray(voxel or (1.0,) * axes)
    size = sides * float(rng.uniform(1e-3, 3e-3))
    gradient = float(np.exp(rng.uniform(np.log(0.7), np.log(2.0)))) * 2e-3 / float(size[-1])
    if grid != (19, 19):  # for fine grids the voxel size falls more than the field strength rises
        gradient *= float((19 / max(n * side for n, side in zip(grid, sides, strict=True))) ** rng.uniform(0.3, 1.1))
    # The trajectory covers between 45 % and 105 % of the grid, nearly equally in all directions.
    extent = (np.asarray(grid) * size / 2)[::-1]
    coverage = rng.uniform(0.45, 1.05) * rng.uniform(0.85, 1.15, axes)
    amplitude = gradient * coverage * extent
    coupling = np.diag(np.exp(rng.normal(0.0, 0.3, axes)) * 50.0) + rng.normal(0.0, 1.0, (axes, axes))
    if axes == 2:  # the z coil of a 2D experiment
        coupling = np.concatenate([coupling, rng.normal(0.0, 2.0, (1, 2))])
    dividers, base = DIVIDERS[axes]
    last = float(rng.choice([1.0, 1.0, -2.0]))
    return Scanner(
        grid=grid,
        voxel_size=tuple(float(s) for s in size),
        gradient=(-gradient,) * (axes - 1) + (-gradient * last,),
        drive_amplitude=tuple(float(a) for a in amplitude),
        dividers=dividers[rng.integers(len(dividers))],
        base_frequency=base,
        core_diameter=float(rng.uniform(17e-9, 30e-9)),
        saturation_magnetisation=float(rng.uniform(420e3, 480e3)),
        sub_voxels=2,
        receive=ReceiveChain(
            coupling=tuple(tuple(float(c) for c in row) for row in coupling),
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
        The selected rows without noise at the time of the measurement, when a receive channel is sometimes dead.
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
    wanted_rows = int(np.exp(rng.uniform(*np.log(ROWS[scanner.dimensions]))))
    level = np.sort((strength / coloured).ravel())[::-1][min(wanted_rows, strength.size - 1)] / 5.0
    deviation = coloured * max(level, 1e-9 * float(strength.max()))

    # Very weak rows, most of the matrix of a fine grid, are neither measured nor stored.
    hopeful = strength > 0.5 * deviation
    voxels = truth.shape[2]
    size = int(rng.integers(1, 5))  # background frames in each block
    blocks = np.arange(voxels + (voxels // BACKGROUND_EVERY + 1) * size) % (BACKGROUND_EVERY + size) < size
    order = np.flatnonzero(~blocks)[:voxels], np.flatnonzero(blocks)
    drift = rng.normal(0.0, 2.0) * deviation * np.exp(2j * np.pi * rng.random(deviation.shape))
    noise = np.zeros((*deviation.shape, voxels + len(order[1])), dtype=np.complex64)
    white = complex_noise((int(hopeful.sum()), noise.shape[2]), rng)
    noise[hopeful] = white * deviation[hopeful][:, None] + drift[hopeful][:, None]
    snr = np.full(deviation.shape, -np.inf)
    snr[hopeful] = (strength / deviation)[hopeful]
    calibration = Calibration.from_arrays(
        truth + noise[..., :voxels],
        frequencies,
        scanner.grid,
        scanner.field_of_view,
        background=noise[..., voxels:],
        order=order,
        snr=snr,
        rows=RowFilter(snr_threshold=float(rng.uniform(2.0, 8.0))),
    )
    selected = deviation[calibration.selection]
    measured = [selected, np.ones_like(selected), selected * np.exp(rng.normal(0.0, 0.5, len(selected)))]
    kept = truth[calibration.selection]
    if rng.random() < DEAD_CHANNEL:
        channel = np.nonzero(calibration.selection)[0]
        kept = kept * (channel != rng.choice(channel))[:, None]
    return calibration, kept, measured[rng.choice(3, p=[0.5, 0.35, 0.15])]
