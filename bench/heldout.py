"""Scanners and phantoms that training has never seen, as the MDF files that a user would have.

Three scanners differ from each other in particles, gradient, drive amplitude, receive chain, calibration noise and
number of rows; the third lies outside the range that training draws from (smaller gradient coverage, larger particles,
a sharp resonance). The phantom families are the three of OpenMPI and four of this file's own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.experiment import acquisition_of
from mpi_fast.mdf import MeasurementFile, write_measurement, write_system_matrix
from mpi_fast.noise import complex_noise
from mpi_fast.phantoms import OPENMPI_FAMILIES, Canvas, Family, ellipse, polyline
from mpi_fast.simulation import ReceiveChain, Scanner

Array = NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut:
    """A scanner, how noisy its calibration is, and how often background was taken."""

    name: str
    scanner: Scanner
    rows_above_5: int
    background_every: int
    background_block: int
    seed: int


SCANNERS = (
    HeldOut(
        "A: OpenMPI-like, 22.3 nm",
        Scanner(
            core_diameter=22.3e-9,
            gradient=(-1.15, -1.15),
            drive_amplitude=(13.1e-3, 12.4e-3),
            receive=ReceiveChain(((61.0, -1.2), (0.8, 38.0), (2.0, -1.0)), (0.8e6, 1.25e6, 1.0e6), 1.5),
        ),
        rows_above_5=400,
        background_every=19,
        background_block=1,
        seed=101,
    ),
    HeldOut(
        "B: fine grid, 26 nm",
        Scanner(
            voxel_size=(1.2e-3, 1.2e-3),
            core_diameter=26.1e-9,
            gradient=(-1.6, -1.6),
            drive_amplitude=(11e-3, 14e-3),
            dividers=(99, 96),
            receive=ReceiveChain(((35.0, 0.4), (1.5, 52.0), (-0.7, 1.9)), (2.1e6, 0.7e6, 1.6e6), 2.6),
        ),
        rows_above_5=700,
        background_every=57,
        background_block=5,
        seed=102,
    ),
    HeldOut(
        "C: outside training, 32 nm",
        Scanner(
            core_diameter=32e-9,
            gradient=(-0.6, -0.6),
            drive_amplitude=(4.9e-3, 5.4e-3),
            receive=ReceiveChain(((44.0, 2.5), (-3.1, 47.0), (3.0, 2.0)), (0.55e6, 0.6e6, 0.5e6), 6.0),
        ),
        rows_above_5=250,
        background_every=19,
        background_block=2,
        seed=103,
    ),
)


# -- phantom families, as in mpi_fast.phantoms ---------------------------------------------------------------------


def rings(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """A ring, open or closed, with a dot in it: vessel wall and catheter tip."""
    cx, cy = rng.uniform(-0.2, 0.2, (2, count))
    radius, half = rng.uniform(0.2, 0.5, count), rng.uniform(0.03, 0.08, count)
    start, span = rng.uniform(0, 2 * np.pi, count), rng.uniform(1.2, 2.0, count) * np.pi
    angles = start[:, None] + span[:, None] * np.linspace(0, 1, 25)
    points = np.stack(
        [cx[:, None] + radius[:, None] * np.cos(angles), cy[:, None] + radius[:, None] * np.sin(angles)], -1
    )
    wall = canvas.cover(polyline(canvas, points, np.tile(half[:, None], 25)))
    tip = canvas.cover(ellipse(canvas, cx, cy, half * 1.5, half * 1.5, start))
    uptake = rng.uniform(0.4, 1.0, count).astype(np.float32)[:, None, None]
    return np.maximum(wall, uptake * tip)


def spirals(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One and a half turns of a spiral whose concentration the tube's width sets."""
    turn, sense = rng.uniform(0, 2 * np.pi, count), rng.choice([-1.0, 1.0], count)
    t = np.linspace(0.15, 1, 33)
    angles = turn[:, None] + sense[:, None] * 3 * np.pi * t
    radius = rng.uniform(0.45, 0.65, count)[:, None] * t
    points = np.stack([radius * np.cos(angles), radius * np.sin(angles)], -1)
    return canvas.cover(polyline(canvas, points, np.tile(rng.uniform(0.03, 0.07, (count, 1)), 33)))


def stenoses(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """A straight vessel that narrows somewhere, over faint tissue."""
    angle, offset = rng.uniform(0, np.pi, count), rng.uniform(-0.25, 0.25, count)
    t = np.linspace(-0.7, 0.7, 21)
    along = np.stack([np.cos(angle), np.sin(angle)], -1)
    across = np.stack([-np.sin(angle), np.cos(angle)], -1)
    points = t[None, :, None] * along[:, None] + offset[:, None, None] * across[:, None]
    where, depth = rng.uniform(-0.3, 0.3, (count, 1)), rng.uniform(0.3, 0.9, (count, 1))
    radii = rng.uniform(0.08, 0.14, (count, 1)) * (1 - depth * np.exp(-(((t - where) / 0.12) ** 2)))
    tissue = canvas.cover(ellipse(canvas, 0 * offset, 0 * offset, 0 * offset + 0.6, 0 * offset + 0.5, angle))
    return np.maximum(canvas.cover(polyline(canvas, points, radii)), 0.12 * tissue)


def crescents(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """A disc less another disc: a heart's wall, with a bright lesion."""
    angle, radius = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.35, 0.6, count)
    shift = radius * rng.uniform(0.2, 0.5, count)
    dx, dy = shift * np.cos(angle), shift * np.sin(angle)
    outer = canvas.cover(ellipse(canvas, -dx / 2, -dy / 2, radius, radius, angle))
    hole = canvas.cover(ellipse(canvas, dx / 2, dy / 2, radius * 0.8, radius * 0.7, angle))
    lesion = canvas.cover(ellipse(canvas, -dx * 1.2, -dy * 1.2, 0 * dx + 0.08, 0 * dx + 0.08, angle))
    return np.maximum(0.6 * outer * (1 - hole), lesion)


FAMILIES: dict[str, Family] = {
    **OPENMPI_FAMILIES,
    "rings": rings,
    "spirals": spirals,
    "stenoses": stenoses,
    "crescents": crescents,
}


def phantoms(count: int, seed: int) -> Array:
    """Held-out phantoms, families in turn, each of random overall concentration: (count, 19, 19) float32."""
    rng = np.random.default_rng(seed)
    canvas = Canvas.of_grid((19, 19))
    drawn = [family(rng, canvas, -(-count // len(FAMILIES))) for family in FAMILIES.values()]
    images = np.stack([canvas.average(one) for one in drawn], axis=1).reshape(-1, 19, 19)[:count]
    return (images * np.exp(rng.uniform(np.log(0.05), np.log(2.0), (count, 1, 1)))).astype(np.float32)


# -- files ---------------------------------------------------------------------------------------------------------


def write_calibration_file(heldout: HeldOut, path: Path) -> NDArray[np.complex64]:
    """Measure the scanner's system matrix with noise, write it, and return the one without noise, (C, K, N)."""
    scanner, rng = heldout.scanner, np.random.default_rng(heldout.seed)
    truth = scanner.system_matrix()
    voxels = truth.shape[2]
    strength = np.where(scanner.frequencies >= 80e3, np.linalg.norm(truth, axis=2) / np.sqrt(voxels), 0.0)
    level = np.sort(strength.ravel())[::-1][heldout.rows_above_5] / 5
    block = heldout.background_block
    total = voxels + -(-voxels // heldout.background_every) * block
    empty = np.flatnonzero(np.arange(total) % (heldout.background_every + block) < block)[: total - voxels]
    noise = complex_noise((total, *truth.shape[:2]), rng).transpose(1, 2, 0) * level
    feedthrough = 30 * level * complex_noise((1, *truth.shape[:2]), rng).transpose(1, 2, 0)
    write_system_matrix(
        path,
        (truth + feedthrough + noise[..., :voxels]).astype(np.complex64),
        size=(scanner.grid[1], scanner.grid[0], 1),
        field_of_view=(scanner.field_of_view[1], scanner.field_of_view[0], scanner.sample_height),
        acquisition=acquisition_of(scanner),
        background=(feedthrough + noise[..., voxels:]).astype(np.complex64),
        background_index=empty,
    )
    return truth


def measure(
    heldout: HeldOut, truth: NDArray[np.complex64], calibration: Calibration, images: Array, snr_db: float, path: Path
) -> NDArray[np.complex64]:
    """Write a measurement of the images at an SNR over the calibration's rows, read it back, return its rows (F, M)."""
    rng = np.random.default_rng((heldout.seed, round(10 * snr_db)))
    clean = np.einsum("fn,ckn->fck", images.reshape(len(images), -1), truth)
    noise = complex_noise(clean.shape, rng)
    selected = calibration.selection
    ratio = np.linalg.norm(clean[:, selected], axis=1) / np.linalg.norm(noise[:, selected], axis=1)
    noise *= (ratio * 10 ** (-snr_db / 20))[:, None, None]
    write_measurement(path, (clean + noise).astype(np.complex64), acquisition=acquisition_of(heldout.scanner))
    with MeasurementFile(path) as file:
        return np.concatenate([calibration.rows(chunk) for chunk in file.frames()])
