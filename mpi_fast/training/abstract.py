"""Measuring operators without a field-free point, so that the network does not depend on one kind of scanner.

`smooth`: smooth functions of any order of strength, from one to as many as the grid can represent; `coils`: an
array of small coils without a gradient field; `lines`: a field-free line at many angles. Each is a real matrix (rows,
N) for a grid of any number of axes, voxels in MDF order (x fastest).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def coordinates(grid: tuple[int, ...], voxel: tuple[float, ...]) -> Array:
    """Positions of the voxels, (N, axes), z, y, x, the longest side of the grid from -1 to 1."""
    sides = [n * size for n, size in zip(grid, voxel, strict=True)]
    axes = [((np.arange(n) + 0.5) / n * 2 - 1) * side / max(sides) for n, side in zip(grid, sides, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(grid))


def smooth(rng: np.random.Generator, places: Array) -> Array:
    """Plane waves of random directions and phases under random windows; the finer, the weaker."""
    voxels, axes = places.shape
    count = int(np.exp(rng.uniform(0.0, np.log(min(0.6 * voxels, 500)))))
    finest = np.pi * (count / 2) ** (1 / axes) * rng.uniform(0.7, 2.0)
    wave = rng.normal(0.0, 1.0, (count, axes))
    wave *= (finest * rng.random(count) ** (1 / axes) / np.linalg.norm(wave, axis=1))[:, None]
    phase = places @ wave.T + rng.uniform(0, 2 * np.pi, count)
    centre, width = rng.uniform(-0.4, 0.4, (count, axes)), np.exp(rng.uniform(np.log(0.3), np.log(3.0)))
    window = np.exp(-0.5 * ((places[:, None] - centre) ** 2).sum(axis=2) / width**2)
    decay = np.exp(-rng.uniform(0.0, 8.0) * (np.linalg.norm(wave, axis=1) / finest) ** rng.uniform(0.5, 2.0))
    return np.asarray((np.cos(phase) * window * decay).T)


def coils(rng: np.random.Generator, places: Array) -> Array:
    """Sensitivities of coils around or above the grid, each with a few harmonics of the drive field."""
    axes = places.shape[1]
    count, harmonics = int(rng.integers(3, 41)), int(rng.integers(1, 6))
    ring = rng.normal(0.0, 1.0, (count, 3))
    ring *= (rng.uniform(1.1, 2.0, count) / np.linalg.norm(ring, axis=1))[:, None]
    flat = np.concatenate([np.zeros((len(places), 3 - axes)), places], axis=1)
    away = flat[:, None] - ring
    distance = np.linalg.norm(away, axis=2)
    axis = rng.normal(0.0, 1.0, (count, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    along = (away * axis).sum(axis=2) / distance
    sensitivity = (3 * along**2 + 0.3) / distance**3
    strength = 1 + 0.6 * (flat @ rng.normal(0.0, 1.0, 3))[:, None] * rng.normal(0.0, 1.0, count)
    powers = [sensitivity * strength**p * np.exp(-p * rng.uniform(0.3, 1.5)) for p in range(harmonics)]
    return np.asarray(np.concatenate(powers, axis=1).T)


def lines(rng: np.random.Generator, places: Array) -> Array:
    """Sums over lines (planes of a volume) at many angles and displacements, blurred by the particles' response."""
    voxels, axes = places.shape
    angles, shifts = int(rng.integers(4, 25)), int(rng.integers(8, 60))
    spacing = 2.0 / voxels ** (1 / axes)
    width = spacing * rng.uniform(0.6, 3.0)
    if axes == 2:
        turn = np.pi * (np.arange(angles) + rng.random()) / angles
        normal = np.stack([np.cos(turn), np.sin(turn)], axis=1)
    else:
        normal = rng.normal(0.0, 1.0, (angles, axes))
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    where = np.linspace(-1, 1, shifts) * rng.uniform(0.6, 1.2)
    distance = ((places @ normal.T)[:, :, None] - where).reshape(voxels, -1)
    profile = 1 / (1 + (distance / width) ** 2) ** float(rng.choice([1.0, 1.5]))
    if rng.random() < 0.5:  # the signal instead of its integral
        profile = profile * distance / width
    return np.asarray(profile.T)


KINDS: tuple[Callable[[np.random.Generator, Array], Array], ...] = (smooth, coils, lines)


def random_operator(rng: np.random.Generator, grid: tuple[int, ...], voxel: tuple[float, ...]) -> Array:
    """One of `KINDS`, (rows, N), with an even number of rows, at least 24; functions are repeated if necessary."""
    kind = KINDS[rng.choice(len(KINDS), p=[0.6, 0.2, 0.2])]
    matrix = kind(rng, coordinates(grid, voxel))
    matrix = matrix / max(np.abs(matrix).max(), 1e-300)
    wanted = max(24, len(matrix) + len(matrix) % 2)
    mixed = rng.normal(0.0, 1.0, (wanted, len(matrix))) / np.sqrt(len(matrix)) if wanted != len(matrix) else None
    return matrix if mixed is None else np.asarray(mixed @ matrix)
