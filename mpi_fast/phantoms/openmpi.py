"""The OpenMPI phantoms in the 38 mm field of view (19 mm = 1.0), as sections and volumes; never used for training."""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.phantoms.canvas import Array, Canvas
from mpi_fast.phantoms.shapes import box, cuboid, local_coordinates, polyline, random_points, rotation


def openmpi_shape(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Section along the axis of the shape phantom: a cone, 22 mm long, 10 degrees apex, 1 mm tip radius."""
    cx, cy = random_points(rng, canvas, count, 0.1).T
    angle = rng.choice(np.arange(4) * np.pi / 2, count) + rng.uniform(-0.2, 0.2, count)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centre = np.stack([cx, cy], axis=1)
    points = centre[:, None] + direction[:, None] * (np.array([-11.0, 11.0]) / 19)[None, :, None]
    tip = 1.0 / 19
    base = tip + 22.0 / 19 * np.tan(np.deg2rad(10))
    cone = polyline(canvas, points, np.tile([tip, base], (count, 1)))
    u = local_coordinates(canvas, centre, rotation(angle))[0]
    return canvas.cover(np.maximum(cone, u - np.float32(11.0 / 19)))


def openmpi_resolution(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Section through the resolution phantom: tubes that leave a common origin at 20 and 30 degrees."""
    image = canvas.blank(count)
    origin = rng.uniform(-0.08, 0.08, (count, 2)) + np.array([-10.0 / 19, 0.0])
    turn = rng.choice(np.arange(4) * np.pi / 2, count)
    for degrees in (-30.0, 0.0, 20.0):
        angle = np.deg2rad(degrees)
        end = origin + 20.0 / 19 * np.array([np.cos(angle), np.sin(angle)])
        points = np.stack([origin, end], axis=1)
        cos, sin = np.cos(turn)[:, None], np.sin(turn)[:, None]
        points = np.stack(
            [cos * points[..., 0] - sin * points[..., 1], sin * points[..., 0] + cos * points[..., 1]], -1
        )
        radius = np.full((count, 2), 0.75 / 19)
        np.maximum(image, canvas.cover(polyline(canvas, points, radius)), out=image)
    return image


def openmpi_concentration(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Section through one layer of the concentration phantom: four 2 mm cubes, 12 mm apart, a dilution series."""
    image = canvas.blank(count)
    cx, cy = random_points(rng, canvas, count, 0.1).T
    first, dilution = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1), 1 / 1.5
    half, side = np.full(count, 6.0 / 19), np.full(count, 1.0 / 19)
    for index, (sx, sy) in enumerate([(-1, -1), (1, -1), (-1, 1), (1, 1)]):
        cube = box(canvas, cx + sx * half, cy + sy * half, side, side, np.zeros(count))
        np.maximum(image, canvas.cover(cube) * canvas.per_image(dilution ** first[:, index]), out=image)
    return image


# -- volumes ------------------------------------------------------------------------------------------------------


def _about(rng: np.random.Generator, canvas: Canvas, count: int) -> NDArray[np.float64]:
    """Orientations of phantoms, (n, 3, 3) rotations: near a multiple of a right angle in the plane, and tilted."""
    angle = rng.choice(np.arange(4) * np.pi / 2, count) + rng.uniform(-0.2, 0.2, count)
    tilt = rng.uniform(-0.1, 0.1, count)
    turn, lean = np.tile(np.eye(3), (2, count, 1, 1))
    turn[:, :2, :2] = rotation(angle)
    lean[:, ::2, ::2] = rotation(tilt)
    return np.asarray(lean @ turn)


def shape_volume(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """The shape phantom: a cone, 22 mm long, 10 degrees apex, 1 mm tip radius."""
    frame, centre = _about(rng, canvas, count), random_points(rng, canvas, count, 0.1)
    half, tip = 11.0 / 19, 1.0 / 19
    points = centre[:, None] + np.array([-half, half])[None, :, None] * frame[:, :1]
    cone = polyline(canvas, points, np.tile([tip, tip + 2 * half * np.tan(np.deg2rad(10))], (count, 1)))
    return canvas.cover(np.maximum(cone, local_coordinates(canvas, centre, frame)[0] - np.float32(half)))


def resolution_volume(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """The resolution phantom: five tubes that leave an origin, at 20 and 30 degrees in one plane, 10 and 15 across."""
    image, frame = canvas.blank(count), _about(rng, canvas, count)
    origin = rng.uniform(-0.08, 0.08, (count, 3)) * canvas.extent - frame[:, 0] * 10 / 19
    for plane, degrees in ((1, 0.0), (1, 20.0), (1, -30.0), (2, 10.0), (2, -15.0)):
        angle = np.deg2rad(degrees)
        end = origin + 20.0 / 19 * (np.cos(angle) * frame[:, 0] + np.sin(angle) * frame[:, plane])
        tubes = polyline(canvas, np.stack([origin, end], axis=1), np.full((count, 2), 0.75 / 19))
        np.maximum(image, canvas.cover(tubes), out=image)
    return image


def concentration_volume(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """The concentration phantom: eight 2 mm cubes, 12 mm apart in two layers 6 mm apart, a dilution series by 1.5."""
    image, centre = canvas.blank(count), random_points(rng, canvas, count, 0.1)
    first = rng.permuted(np.tile(np.arange(8), (count, 1)), axis=1)
    half, upright = np.full((count, 3), 1.0 / 19), np.tile(np.eye(3), (count, 1, 1))
    for index, corner in enumerate(np.ndindex(2, 2, 2)):
        place = centre + (2 * np.array(corner) - 1) * np.array([6.0, 6.0, 3.0]) / 19
        cube = cuboid(canvas, place, half, upright)
        np.maximum(image, canvas.cover(cube) * canvas.per_image(1.5 ** -first[:, index].astype(float)), out=image)
    return image
