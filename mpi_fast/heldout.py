"""Held-out scanners and phantoms, which are not used in training, to compare methods.

Three scanners differ from each other in particles, gradient, drive amplitude, receive chain, calibration noise and
number of rows; the third lies outside the range of the training (smaller gradient coverage, larger particles, a sharp
resonance). A fourth scanner is for volumes. Each may have any grid over its field of view, see `HeldOut.on`. The
phantom families are those of OpenMPI and of `phantoms.unseen`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.experiment import MATRIX_BYTES, MeasuredMatrix, kept_frequencies, noisy, row_strength
from mpi_fast.limits import LOWEST_FREQUENCY
from mpi_fast.noise import complex_noise
from mpi_fast.phantoms import OPENMPI_FAMILIES, OPENMPI_VOLUMES, Canvas, Family, unseen
from mpi_fast.simulation import ReceiveChain, Scanner

Array = NDArray[np.float32]


@dataclass(frozen=True)
class HeldOut:
    """A scanner, with the noise of its calibration and the interval of its background scans."""

    name: str
    scanner: Scanner
    rows_above_5: int
    background_every: int
    background_block: int
    seed: int

    def on(self, grid: tuple[int, ...]) -> "HeldOut":
        """The same scanner with another grid over the same field of view.

        The delta sample is as large as a voxel, and the measuring time keeps the number of usable rows the same.
        """
        scanner = self.scanner
        if len(grid) != scanner.dimensions or min(grid) < 1:
            raise InputError(f"{self.name}: grid {grid}, expected {scanner.dimensions} positive numbers")
        if grid == scanner.grid:
            return self
        voxel_size = tuple(size / count for size, count in zip(scanner.field_of_view, grid, strict=True))
        return replace(self, scanner=replace(scanner, grid=grid, voxel_size=voxel_size))

    def measure_matrix(self, matrix_bytes: int = MATRIX_BYTES) -> MeasuredMatrix:
        """Measure the scanner's system matrix with white noise, background scans and a constant feed-through.

        A matrix larger than ``matrix_bytes`` keeps only its strongest frequencies.
        """
        scanner, rng = self.scanner, np.random.default_rng(self.seed)
        strength = np.where(scanner.frequencies >= LOWEST_FREQUENCY, row_strength(scanner), 0.0)
        level = np.sort(strength.ravel())[::-1][self.rows_above_5] / 5
        kept = kept_frequencies(scanner, strength, matrix_bytes)
        truth = scanner.system_matrix(kept)
        voxels, block = truth.shape[2], self.background_block
        total = voxels + -(-voxels // self.background_every) * block
        empty = np.flatnonzero(np.arange(total) % (self.background_every + block) < block)[: total - voxels]
        frames, deviation = np.arange(total), np.full(truth.shape[:2], level)
        foreground, background = noisy(truth, deviation, frames[:voxels], frames[voxels:], rng)
        feedthrough = (30 * level * complex_noise((1, *truth.shape[:2]), rng)).transpose(1, 2, 0)
        foreground += feedthrough
        background += feedthrough
        return MeasuredMatrix(scanner, kept, truth, foreground, background, np.setdiff1d(frames, empty), empty)


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

VOLUME = HeldOut(
    "D: OpenMPI-like volume, 22.3 nm",
    Scanner.volume(
        core_diameter=22.3e-9,
        gradient=(-1.1, -1.1, 2.2),
        drive_amplitude=(12.9e-3, 12.4e-3, 13.3e-3),
        receive=ReceiveChain(((61.0, -1.2, 0.9), (0.8, 38.0, -0.6), (2.0, -1.0, 44.0)), (0.8e6, 1.25e6, 1.0e6), 1.5),
    ),
    rows_above_5=3000,
    background_every=19,
    background_block=1,
    seed=104,
)

FAMILIES: dict[str, Family] = {
    **OPENMPI_FAMILIES,
    "rings": unseen.rings,
    "spirals": unseen.spirals,
    "stenoses": unseen.stenoses,
    "crescents": unseen.crescents,
}
VOLUMES: dict[str, Family] = {
    **OPENMPI_VOLUMES,
    "helices": unseen.helices,
    "shells": unseen.shells,
    "stenoses": unseen.stenosis_volumes,
}


def families(dimensions: int) -> dict[str, Family]:
    """The phantom families of planes (2) or volumes (3)."""
    return FAMILIES if dimensions == 2 else VOLUMES


def phantoms(
    count: int,
    seed: int | Sequence[int] | np.random.Generator,
    grid: tuple[int, ...] = (19, 19),
    aspect: float | Sequence[float] = 1.0,
    concentrations: tuple[float, float] = (0.05, 2.0),
) -> Array:
    """Held-out phantoms, families in turn, with random overall concentrations: (count, *grid) float32.

    Parameters
    ----------
    count : int
    seed : int, sequence of int, or numpy Generator
    grid, aspect
        See `phantoms.generate`.
    concentrations : (low, high)
        Range of the largest concentration, relative to the delta sample, uniform in the logarithm.
    """
    rng = np.random.default_rng(seed)
    canvas = Canvas.of_grid(grid, aspect)
    drawing = families(len(grid)).values()
    turns = -(-count // len(drawing))
    drawn = [canvas.average(family(rng, canvas, turns)) for family in drawing]
    images = np.stack(drawn, axis=1).reshape(-1, *grid)[:count]
    low, high = np.log(concentrations)
    concentration = np.exp(rng.uniform(low, high, (count, *(1,) * len(grid))))
    return (images * concentration).astype(np.float32)
