"""Families of volumes for training: tumours, aneurysms, boxes, dots and smooth fields; others are in `wide`."""

import numpy as np

from mpi_fast.phantoms.canvas import Array, Canvas
from mpi_fast.phantoms.shapes import (
    bezier,
    cuboid,
    ellipsoid,
    polyline,
    present,
    random_points,
    random_rotations,
    smooth_field,
)


def tumours(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Ellipsoids of graded uptake, some with a necrotic core, in clusters, fed by a vessel."""
    image = canvas.blank(count)
    fed = rng.uniform(0.1, 0.8, count) * (rng.random(count) < 0.5)
    vessel = polyline(canvas, bezier(rng, canvas, count, 6), np.tile(rng.uniform(0.03, 0.08, (count, 1)), 6))
    np.maximum(image, canvas.cover(vessel) * canvas.per_image(fed), out=image)
    cluster, spread = random_points(rng, canvas, count, 0.5), rng.uniform(0.15, 0.6, (count, 1))
    limit = 0.85 * canvas.extent
    for index in range(4):
        centre = np.clip(cluster + spread * random_points(rng, canvas, count, 1.0), -limit, limit)
        size = rng.uniform(0.1, 0.4, (count, 1)) * (1.0 if index == 0 else 0.7)
        half = size * rng.uniform(0.6, 1.0, (count, 3))
        distance = ellipsoid(canvas, centre, half, random_rotations(rng, canvas, count))
        least = half.min(axis=1)
        rim = rng.uniform(0.0, 0.5, count) * (rng.random(count) < 0.6)
        graded = 1 - canvas.per_image(rim) * np.clip(1 + distance / canvas.per_image(least), 0, 1)
        core = (rng.random(count) < 0.3) * (least > 0.14) * rng.uniform(0.5, 1.0, count)
        necrosis = canvas.cover(distance + canvas.per_image(least * rng.uniform(0.3, 0.6, count)))
        uptake = rng.uniform(0.3, 1.0, count) * (present(rng, count, index, 4) if index else 1.0)
        graded *= (1 - necrosis * canvas.per_image(core)) * canvas.per_image(uptake)
        np.maximum(image, canvas.cover(distance) * graded, out=image)
    return image


def aneurysms(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """A curved vessel with a swelling, or with a sac at its side, whose concentration may be lower or higher."""
    pieces, rows = 13, np.arange(count)
    points = bezier(rng, canvas, count, pieces)
    where = rng.integers(3, pieces - 3, count)
    vessel, sac = rng.uniform(0.05, 0.13, count), rng.uniform(0.12, 0.34, count)
    swelling = np.where(rng.random(count) < 0.4, rng.uniform(0.5, 1.5, count), 0.0)[:, None]
    radii = vessel[:, None] * (1 + swelling * np.exp(-(((np.arange(pieces) - where[:, None]) / 1.5) ** 2)))
    lumen = canvas.cover(polyline(canvas, points, radii)) * canvas.per_image(rng.uniform(0.3, 1.0, count))
    tangent = points[rows, where + 1] - points[rows, where - 1]
    aside = np.cross(tangent, rng.standard_normal((count, 3)))
    aside /= np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-9)
    centre = points[rows, where] + aside * (0.8 * sac + vessel)[:, None]
    half = sac[:, None] * rng.uniform(0.7, 1.0, (count, 3))
    bulge = canvas.cover(ellipsoid(canvas, centre, half, random_rotations(rng, canvas, count)))
    filled = rng.uniform(0.3, 1.0, count) * ((swelling[:, 0] == 0) | (rng.random(count) < 0.3))
    return np.asarray(np.maximum(lumen, bulge * canvas.per_image(filled)))


def boxes(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One to four boxes and ellipsoids of differing concentration, one over the other, holes included."""
    image, upright = canvas.blank(count), rng.random(count) < 0.4
    for index in range(4):
        centre = random_points(rng, canvas, count, 0.55)
        half = rng.uniform(0.08, 0.55, (count, 3)) * canvas.extent
        frame = np.where(upright[:, None, None], np.eye(3), random_rotations(rng, canvas, count))
        square = canvas.per_image(rng.random(count) < 0.7) > 0
        distance = np.where(square, cuboid(canvas, centre, half, frame), ellipsoid(canvas, centre, half, frame))
        drawn = present(rng, count, index, 4) if index else np.ones(count)
        value = canvas.per_image(rng.uniform(0.0, 1.0, count) if index else rng.uniform(0.4, 1.0, count))
        image += canvas.cover(distance) * canvas.per_image(drawn) * (value - image)
    return image


def dots(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One to nine balls or cubes, graded like a dilution series or alike."""
    image = canvas.blank(count)
    size, dilution = rng.uniform(0.05, 0.16, count), rng.uniform(0.5, 1.0, count)
    square, frame, most = rng.random(count) < 0.5, random_rotations(rng, canvas, count), rng.integers(1, 10, count)
    for index in range(9):
        centre = random_points(rng, canvas, count, 0.8)
        half = np.tile((size * rng.uniform(0.7, 1.3, count))[:, None], 3)
        ball = ellipsoid(canvas, centre, half, frame)
        distance = np.where(canvas.per_image(square) > 0, cuboid(canvas, centre, half, frame), ball)
        uptake = dilution**index * rng.uniform(0.7, 1.0, count) * (index < most)
        np.maximum(image, canvas.cover(distance) * canvas.per_image(uptake), out=image)
    return image


def fields(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Smooth random fields, thresholded or graded, in a window."""
    smooth = smooth_field(rng, canvas, count, rng.uniform(0.08, 0.35, count) * canvas.size)
    level, sharpness = rng.uniform(0.0, 1.2, count), np.exp(rng.uniform(np.log(0.5), np.log(20.0), count))
    value = np.clip((smooth - canvas.per_image(level)) * canvas.per_image(sharpness), 0.0, 1.0)
    half = rng.uniform(0.5, 1.1, (count, 3)) * canvas.extent
    window = ellipsoid(canvas, random_points(rng, canvas, count, 0.3), half, random_rotations(rng, canvas, count))
    return np.asarray(value * canvas.cover(window) * canvas.per_image(rng.uniform(0.4, 1.0, count)))
