"""Families not used in training: rings, spirals, stenoses and crescents; helices, shells and stenoses as volumes."""

import numpy as np

from mpi_fast.phantoms.canvas import Array, Canvas
from mpi_fast.phantoms.shapes import (
    cuboid,
    ellipse,
    ellipsoid,
    local_coordinates,
    polyline,
    random_points,
    random_rotations,
)


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
    """One and a half turns of a spiral whose concentration depends on the tube's width."""
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


# -- volumes ------------------------------------------------------------------------------------------------------


def helices(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Two to three turns of a tube around an axis of any direction."""
    frame, centre = random_rotations(rng, canvas, count), random_points(rng, canvas, count, 0.15)
    t = np.linspace(-1, 1, 33)
    angle = rng.choice([-1.0, 1.0], count)[:, None] * rng.uniform(2.0, 3.0, count)[:, None] * np.pi * t
    radius, half = rng.uniform(0.25, 0.5, (count, 1)), rng.uniform(0.3, 0.7, (count, 1))
    local = np.stack([radius * np.cos(angle), radius * np.sin(angle), half * t], axis=-1)
    points = centre[:, None] + (local @ frame) * canvas.extent
    return canvas.cover(polyline(canvas, points, np.tile(rng.uniform(0.05, 0.09, (count, 1)), 33)))


def shells(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """The wall of an ellipsoid, whole or open at one side, with a dot in it: a heart's wall and a catheter's tip."""
    frame, centre = random_rotations(rng, canvas, count), random_points(rng, canvas, count, 0.15)
    half = rng.uniform(0.35, 0.65, (count, 3)) * canvas.size
    wall = canvas.per_image(rng.uniform(0.05, 0.1, count))
    distance = np.abs(ellipsoid(canvas, centre, half, frame)) - wall
    opening = rng.uniform(0.3, 1.2, count) * half[:, 0]
    shell = canvas.cover(np.maximum(distance, local_coordinates(canvas, centre, frame)[0] - canvas.per_image(opening)))
    tip = canvas.cover(ellipsoid(canvas, centre, np.full((count, 3), 0.1), frame))
    return np.asarray(np.maximum(shell, tip * canvas.per_image(rng.uniform(0.4, 1.0, count))))


def stenosis_volumes(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """A straight vessel that narrows somewhere, through a block of faint tissue."""
    frame, centre = random_rotations(rng, canvas, count), random_points(rng, canvas, count, 0.2)
    t = np.linspace(-0.75, 0.75, 21)
    where, depth = rng.uniform(-0.3, 0.3, (count, 1)), rng.uniform(0.3, 0.9, (count, 1))
    radii = rng.uniform(0.12, 0.2, (count, 1)) * (1 - depth * np.exp(-(((t - where) / 0.15) ** 2)))
    points = centre[:, None] + t[None, :, None] * frame[:, :1] * canvas.extent
    tissue = canvas.cover(cuboid(canvas, centre, np.tile([0.6, 0.5, 0.4], (count, 1)) * canvas.extent, frame))
    return np.asarray(np.maximum(canvas.cover(polyline(canvas, points, radii)), 0.12 * tissue))
