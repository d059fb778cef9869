"""Scanners and phantoms that training has never seen: what methods are compared on.

Three scanners differ from each other in particles, gradient, drive amplitude, receive chain, calibration noise and
number of rows; the third lies outside the range that training draws from (smaller gradient coverage, larger particles,
a sharp resonance). The phantom families are the three of OpenMPI and four of this file's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpi_fast.experiment import MeasuredMatrix
from mpi_fast.noise import complex_noise
from mpi_fast.phantoms import OPENMPI_FAMILIES, Canvas, Family
from mpi_fast.phantoms.shapes import ellipse, polyline
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

    def measure_matrix(self) -> MeasuredMatrix:
        """Measure the scanner's system matrix with white noise, background scans and a constant feed-through."""
        scanner, rng = self.scanner, np.random.default_rng(self.seed)
        truth = scanner.system_matrix()
        voxels = truth.shape[2]
        strength = np.where(scanner.frequencies >= 80e3, np.linalg.norm(truth, axis=2) / np.sqrt(voxels), 0.0)
        level = np.sort(strength.ravel())[::-1][self.rows_above_5] / 5
        block = self.background_block
        total = voxels + -(-voxels // self.background_every) * block
        empty = np.flatnonzero(np.arange(total) % (self.background_every + block) < block)[: total - voxels]
        noise = complex_noise((total, *truth.shape[:2]), rng).transpose(1, 2, 0) * level
        feedthrough = 30 * level * complex_noise((1, *truth.shape[:2]), rng).transpose(1, 2, 0)
        return MeasuredMatrix(
            scanner=scanner,
            truth=truth,
            foreground=(truth + feedthrough + noise[..., :voxels]).astype(np.complex64),
            background=(feedthrough + noise[..., voxels:]).astype(np.complex64),
            foreground_index=np.setdiff1d(np.arange(total), empty),
            background_index=empty,
        )


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
    return np.asarray(np.maximum(wall, uptake * tip))


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
    return np.asarray(np.maximum(canvas.cover(polyline(canvas, points, radii)), 0.12 * tissue))


def crescents(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """A disc less another disc: a heart's wall, with a bright lesion."""
    angle, radius = rng.uniform(0, 2 * np.pi, count), rng.uniform(0.35, 0.6, count)
    shift = radius * rng.uniform(0.2, 0.5, count)
    dx, dy = shift * np.cos(angle), shift * np.sin(angle)
    outer = canvas.cover(ellipse(canvas, -dx / 2, -dy / 2, radius, radius, angle))
    hole = canvas.cover(ellipse(canvas, dx / 2, dy / 2, radius * 0.8, radius * 0.7, angle))
    lesion = canvas.cover(ellipse(canvas, -dx * 1.2, -dy * 1.2, 0 * dx + 0.08, 0 * dx + 0.08, angle))
    return np.asarray(np.maximum(0.6 * outer * (1 - hole), lesion))


FAMILIES: dict[str, Family] = {
    **OPENMPI_FAMILIES,
    "rings": rings,
    "spirals": spirals,
    "stenoses": stenoses,
    "crescents": crescents,
}


def phantoms(count: int, seed: int | Sequence[int]) -> Array:
    """Held-out phantoms, families in turn, each of random overall concentration: (count, 19, 19) float32."""
    rng = np.random.default_rng(seed)
    canvas = Canvas.of_grid((19, 19))
    drawn = [family(rng, canvas, -(-count // len(FAMILIES))) for family in FAMILIES.values()]
    images = np.stack([canvas.average(one) for one in drawn], axis=1).reshape(-1, 19, 19)[:count]
    return (images * np.exp(rng.uniform(np.log(0.05), np.log(2.0), (count, 1, 1)))).astype(np.float32)
