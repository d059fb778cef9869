"""Families for a wider prior, in planes and volumes alike: trees, cells, blobs, strands, textures and points."""

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mpi_fast.phantoms.canvas import Array, Canvas
from mpi_fast.phantoms.shapes import (
    cuboid,
    ellipsoid,
    polyline,
    present,
    random_points,
    random_rotations,
    smooth_field,
    tube,
)

Points = NDArray[np.float64]
GENERATIONS = {2: 5, 3: 4}  # of a tree's branches, by number of dimensions
WIDTH = {2: 1.0, 3: 1.5}  # thicker tubes in volumes, because a thin tube fills little of a voxel


def _direction(rng: np.random.Generator, count: int, dimensions: int) -> Points:
    """Random unit vectors (n, d)."""
    vector = rng.standard_normal((count, dimensions))
    return np.asarray(vector / np.linalg.norm(vector, axis=1, keepdims=True))


def trees(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Vessel trees: each branch forks into two thinner ones (Murray's law), some stop early; one uptake per image."""
    dimensions, generations = canvas.dimensions, GENERATIONS[canvas.dimensions]
    heading = _direction(rng, count, dimensions)
    root = -heading * canvas.extent * rng.uniform(0.5, 0.9, (count, 1)) + random_points(rng, canvas, count, 0.15)
    radius = rng.uniform(0.03, 0.11, count) * WIDTH[dimensions]
    length = rng.uniform(0.35, 0.7, count)
    spread, shorter = rng.uniform(0.3, 0.9, count), rng.uniform(0.6, 0.85, count)
    branches = [(root, heading, radius, length, np.ones(count, dtype=bool))]
    distance = np.full((count, *canvas.shape), np.inf, dtype=np.float32)
    for generation in range(generations):
        following = []
        for start, along, r, reach, alive in branches:
            end = start + along * reach[:, None]
            middle = (start + end) / 2 + 0.12 * reach[:, None] * _direction(rng, count, dimensions)
            thick = np.where(alive, np.maximum(r, 0.008), -9.0)  # branches that do not grow are invisible
            if generation < 3:
                tube(canvas, start, middle, thick, thick, distance)
                tube(canvas, middle, end, thick, thick, distance)
            else:  # twigs are too short to bend
                tube(canvas, start, end, thick, thick, distance)
            share = rng.uniform(0.3, 0.7, count)  # share of the flow, which is proportional to the cube of the radius
            aside = _direction(rng, count, dimensions) * spread[:, None]
            for side, part in ((1.0, share), (-1.0, 1 - share)):
                turned = along + side * aside / part[:, None] * 0.5
                turned = turned / np.linalg.norm(turned, axis=1, keepdims=True)
                goes_on = alive & (rng.random(count) < 0.85)
                following.append((end, turned, r * np.cbrt(part), reach * shorter, goes_on))
        branches = following
    return canvas.cover(distance) * canvas.per_image(rng.uniform(0.4, 1.0, count))


def cells(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Piecewise constant Voronoi cells, many of them empty, in a window or all over the image."""
    most = rng.integers(4, 25, count)
    stretch = np.exp(rng.uniform(-0.7, 0.7, (count, canvas.dimensions)))
    empty = rng.uniform(0.2, 0.8, count)
    nearest = np.full((count, *canvas.shape), np.inf, dtype=np.float32)
    image = canvas.blank(count)
    for index in range(24):
        seed = random_points(rng, canvas, count, 1.0)
        value = rng.uniform(0.1, 1.0, count) * (rng.random(count) > empty)
        value = np.where(index == 0, np.maximum(value, 0.3), value)
        squares = [
            ((c - canvas.per_image(seed[:, axis])) * canvas.per_image(stretch[:, axis])) ** 2
            for axis, c in enumerate(canvas.coordinates)
        ]
        square = reduce(np.add, squares) + canvas.per_image(np.where(index < most, 0.0, 1e3))
        closer = square < nearest
        np.copyto(nearest, square, where=closer)
        np.copyto(image, canvas.per_image(value), where=closer)
    half = canvas.extent * rng.uniform(0.4, 1.0, (count, canvas.dimensions))
    window = canvas.cover(
        ellipsoid(canvas, random_points(rng, canvas, count, 0.3), half, random_rotations(rng, canvas, count))
    )
    whole = rng.random(count) < 0.3
    return np.asarray(image * np.where(canvas.per_image(whole) > 0, np.float32(1), window))


def blobs(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Sums of one to eight Gaussians, long and round, broad and narrow, like diffuse distributions without edges."""
    image, most = canvas.blank(count), rng.integers(1, 9, count)
    for index in range(8):
        width = np.exp(rng.uniform(np.log(0.04), np.log(0.3), (count, 1)))
        half = width * np.exp(rng.uniform(-0.5, 0.5, (count, canvas.dimensions)))
        radius = ellipsoid(canvas, random_points(rng, canvas, count, 0.8), half, random_rotations(rng, canvas, count))
        radius = radius / canvas.per_image(half.min(axis=1)) + 1
        image += canvas.per_image(rng.uniform(0.1, 1.0, count) * (index < most)) * np.exp(-0.5 * radius**2)
    top = image.max(axis=tuple(range(1, image.ndim)), keepdims=True)
    return np.asarray(image / np.maximum(top, np.float32(1e-6)) * canvas.per_image(rng.uniform(0.4, 1.0, count)))


def strands(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One to three long, thin, smooth curves: catheters, threads, coiled vessels."""
    image, pieces = canvas.blank(count), 21
    t = np.linspace(0, 1, pieces)[None, :, None]
    thin, thick = np.log(np.array([0.015, 0.06]) * WIDTH[canvas.dimensions])
    for index in range(3):
        points = random_points(rng, canvas, count, 0.2)[:, None]
        for wave in range(1, 6):  # a smooth random curve, as a sum of a few waves
            size = rng.standard_normal((count, 1, canvas.dimensions)) * canvas.extent * 0.6 / wave
            points = points + size * np.cos(np.pi * wave * t + rng.uniform(0, 2 * np.pi, size.shape))
        points = np.clip(points, -0.95 * canvas.extent, 0.95 * canvas.extent)
        radius = np.tile(np.exp(rng.uniform(thin, thick, (count, 1))), pieces)
        uptake = rng.uniform(0.3, 1.0, count) * (present(rng, count, index, 3) if index else 1.0)
        np.maximum(image, canvas.cover(polyline(canvas, points, radius)) * canvas.per_image(uptake), out=image)
    return image


def textures(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """A region filled with fine texture, two to six voxels fine: stripes, checks or grain."""
    half = rng.uniform(0.3, 0.9, (count, canvas.dimensions)) * canvas.extent
    centre, frame = random_points(rng, canvas, count, 0.3), random_rotations(rng, canvas, count)
    square = canvas.per_image(rng.random(count) < 0.5) > 0
    distance = np.where(square, cuboid(canvas, centre, half, frame), ellipsoid(canvas, centre, half, frame))
    voxel = canvas.pixel * float(np.mean(canvas.factors))
    length = voxel * rng.uniform(2.0, 6.0, count)
    wave = frame[:, 0] / length[:, None] * 2 * np.pi
    other = frame[:, 1] / length[:, None] * 2 * np.pi * (rng.random((count, 1)) < 0.5)  # without a second wave: stripes
    shift = rng.uniform(0, 2 * np.pi, (2, count))
    phases = [
        reduce(np.add, [canvas.per_image(k[:, axis]) * c for axis, c in enumerate(canvas.coordinates)])
        for k in (wave, other)
    ]
    pattern = np.sin(phases[0] + canvas.per_image(shift[0])) * np.cos(
        phases[1] + canvas.per_image(shift[1] * other.any(axis=1))
    )
    grain = smooth_field(rng, canvas, count, length / 4)
    pattern = np.where(canvas.per_image(rng.random(count) < 0.4) > 0, grain, 1.5 * pattern)
    sharpness, contrast = np.exp(rng.uniform(-0.5, 1.5, count)), rng.uniform(0.2, 1.0, count)
    value = 1 - canvas.per_image(contrast) * np.clip(0.5 + 0.5 * canvas.per_image(sharpness) * pattern, 0, 1)
    return np.asarray(canvas.cover(distance) * value * canvas.per_image(rng.uniform(0.4, 1.0, count)))


def points(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One to six points, a voxel each, of widely differing strength: 1 to 1/30."""
    grid = np.array([size // s for size, s in zip(canvas.shape, canvas.factors, strict=True)])
    voxels, most = np.zeros((count, *grid), dtype=np.float32), rng.integers(1, 7, count)
    image = np.arange(count)
    for index in range(6):
        place = tuple((rng.uniform(0.05, 0.95, count) * size).astype(int) for size in grid)
        strength = np.exp(rng.uniform(np.log(1 / 30), 0.0, count)) if index else rng.uniform(0.3, 1.0, count)
        voxels[(image, *place)] = np.maximum(voxels[(image, *place)], strength * (index < most))
    for axis, factor in enumerate(canvas.factors):
        voxels = np.repeat(voxels, factor, axis=axis + 1)
    return voxels
