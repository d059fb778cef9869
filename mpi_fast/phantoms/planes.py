"""Families of images for training: tumours, vessels, bars, dots, letters, regions and smooth fields."""

import numpy as np

from mpi_fast.phantoms.canvas import Array, Canvas
from mpi_fast.phantoms.shapes import (
    bezier,
    box,
    ellipse,
    local_coordinates,
    polyline,
    present,
    random_points,
    rotation,
    smooth_field,
)


def vessels(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One to three curved, tapering vessels of differing uptake; the first may branch."""
    image = canvas.blank(count)
    trunk = bezier(rng, canvas, count, 9)
    for index in range(3):
        points = bezier(rng, canvas, count, 9) if index else trunk
        if index == 1:  # a branch leaves the first vessel half-way along
            branch = rng.random(count) < 0.5
            points += np.where(branch[:, None], trunk[:, 4] - points[:, 0], 0.0)[:, None, :]
        radius = rng.uniform(0.02, 0.10, count)[:, None] * np.linspace(1, rng.uniform(0.4, 1.0), 9)
        uptake = rng.uniform(0.3, 1.0, count) * (present(rng, count, index, 3) if index else 1.0)
        np.maximum(image, canvas.cover(polyline(canvas, points, radius)) * canvas.per_image(uptake), out=image)
    return image


def tumours(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Tumours of graded uptake, some with a necrotic core, in clusters, fed by a vessel, over faint background."""
    image = canvas.blank(count)
    fed = rng.uniform(0.1, 0.8, count) * (rng.random(count) < 0.5)
    vessel = polyline(canvas, bezier(rng, canvas, count, 7), np.tile(rng.uniform(0.02, 0.06, (count, 1)), 7))
    np.maximum(image, canvas.cover(vessel) * canvas.per_image(fed), out=image)
    cluster_x, cluster_y = random_points(rng, canvas, count, 0.55).T
    spread, limit = rng.uniform(0.15, 0.6, count), 0.85 * canvas.extent[:, None]
    for index in range(4):
        dx, dy = random_points(rng, canvas, count, 1.0).T
        cx, cy = np.clip([cluster_x + dx * spread, cluster_y + dy * spread], -limit, limit)
        a = rng.uniform(0.06, 0.32, count) * (1.0 if index == 0 else 0.7)
        b = a * rng.uniform(0.6, 1.0, count)
        distance = ellipse(canvas, cx, cy, a, b, rng.uniform(0, np.pi, count))
        lobes = 1 + 0.12 * np.sin(
            rng.integers(2, 6, count)[:, None, None]
            * np.arctan2(canvas.y - canvas.per_image(cy), canvas.x - canvas.per_image(cx))
            + canvas.per_image(rng.uniform(0, 2 * np.pi, count))
        )
        distance = distance + canvas.per_image(b) * (1 - lobes).astype(np.float32)
        rim = rng.uniform(0.0, 0.5, count) * (rng.random(count) < 0.6)
        graded = 1 - canvas.per_image(rim) * np.clip(
            1 + distance / canvas.per_image(b), 0, 1
        )  # uptake falls towards the edge
        core = (rng.random(count) < 0.3) * (a > 0.14)
        necrosis = canvas.cover(distance + canvas.per_image(b * rng.uniform(0.3, 0.6, count)))
        graded = graded * (1 - necrosis * canvas.per_image(core * rng.uniform(0.5, 1.0, count)))
        uptake = rng.uniform(0.3, 1.0, count) * (present(rng, count, index, 4) if index else 1.0)
        np.maximum(image, canvas.cover(distance) * graded * canvas.per_image(uptake), out=image)
    return image


def bars(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Two to five parallel bars of differing width, gap, length and uptake."""
    image = canvas.blank(count)
    angle = rng.uniform(0, np.pi, count) * (rng.random(count) < 0.7)
    angle = angle + np.pi / 2 * (rng.random(count) < 0.5)
    width, gap = rng.uniform(0.03, 0.15, count), rng.uniform(0.05, 0.3, count)
    cx, cy = random_points(rng, canvas, count, 0.3).T
    most = rng.integers(2, 6, count)
    for index in range(5):
        offset = (index - (most - 1) / 2) * (2 * width + gap)
        x, y = cx - offset * np.sin(angle), cy + offset * np.cos(angle)
        distance = box(canvas, x, y, rng.uniform(0.2, 0.6, count), width, angle)
        uptake = rng.uniform(0.4, 1.0, count) * (index < most)
        np.maximum(image, canvas.cover(distance) * canvas.per_image(uptake), out=image)
    return image


def dots(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One to nine discs or squares, graded like a dilution series or alike."""
    image = canvas.blank(count)
    size, dilution = rng.uniform(0.04, 0.15, count), rng.uniform(0.5, 1.0, count)
    square, angle = rng.random(count) < 0.5, rng.uniform(0, np.pi, count)
    most = rng.integers(1, 10, count)
    for index in range(9):
        cx, cy = random_points(rng, canvas, count, 0.8).T
        radius = size * rng.uniform(0.7, 1.3, count)
        disc = ellipse(canvas, cx, cy, radius, radius, angle)
        distance = np.where(square[:, None, None], box(canvas, cx, cy, radius, radius, angle), disc)
        uptake = dilution**index * rng.uniform(0.7, 1.0, count) * (index < most)
        np.maximum(image, canvas.cover(distance) * canvas.per_image(uptake), out=image)
    return image


def letters(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Letter-like figures: up to four straight strokes between the points of a 3 x 3 lattice."""
    lattice = np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]), axis=-1).reshape(9, 2)
    size = rng.uniform(0.2, 0.65, (count, 1, 2))
    centre = rng.uniform(-0.3, 0.3, (count, 1, 2))
    width = rng.uniform(0.03, 0.12, (count, 1))
    image = canvas.blank(count)
    last = rng.integers(0, 9, count)
    for index in range(4):
        following = (last + rng.integers(1, 9, count)) % 9
        points = (lattice[np.stack([last, following], axis=1)] * size + centre) * canvas.extent
        stroke = canvas.cover(polyline(canvas, points, np.repeat(width, 2, axis=1)))
        drawn = present(rng, count, index, 5) if index else np.ones(count)
        np.maximum(image, stroke * canvas.per_image(drawn), out=image)
        last = np.where(rng.random(count) < 0.75, following, rng.integers(0, 9, count))
    return image * canvas.per_image(rng.uniform(0.5, 1.0, count))


def regions(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Large overlapping ellipses and polygons of differing concentration, holes included: organs, chambers."""
    image = canvas.blank(count)
    for index in range(4):
        cx, cy = random_points(rng, canvas, count, 0.5).T
        a, b = rng.uniform(0.1, 0.6, count), rng.uniform(0.1, 0.6, count)
        angle = rng.uniform(0, np.pi, count)
        shapes = np.stack([ellipse(canvas, cx, cy, a, b, angle), box(canvas, cx, cy, a, b, angle)])
        third = ellipse(canvas, cx, cy, a, a, angle)
        half_plane = local_coordinates(canvas, np.stack([cx, cy], -1), rotation(angle + 1.0))[0] - canvas.per_image(
            a * rng.uniform(-0.5, 0.5, count)
        )
        wedge = np.maximum(third, half_plane)
        kind = rng.integers(0, 3, count)[:, None, None]
        distance = np.where(kind == 0, shapes[0], np.where(kind == 1, shapes[1], wedge))
        inside = canvas.cover(distance) * canvas.per_image(present(rng, count, index, 4) if index else np.ones(count))
        value = canvas.per_image(rng.uniform(0.0, 1.0, count) if index else rng.uniform(0.4, 1.0, count))
        image += inside * (value - image)
    return image


def fields(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Smooth random fields, thresholded or graded: diffuse distributions that no list of shapes contains."""
    smooth = smooth_field(rng, canvas, count, rng.uniform(0.06, 0.3, count) * canvas.size)
    level = canvas.per_image(rng.uniform(0.0, 1.5, count))
    sharpness = canvas.per_image(np.exp(rng.uniform(np.log(0.5), np.log(30.0), count)))
    value = np.clip((smooth - level) * sharpness, 0.0, 1.0)
    a, b = rng.uniform(0.4, 1.0, count), rng.uniform(0.4, 1.0, count)
    cx, cy = random_points(rng, canvas, count, 0.3).T
    window = ellipse(canvas, cx, cy, a, b, rng.uniform(0, np.pi, count))
    return np.asarray(value * canvas.cover(window) * canvas.per_image(rng.uniform(0.4, 1.0, count)))
