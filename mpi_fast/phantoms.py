"""Concentration images to test and to train with: tumours, vessels, bars, dots, letters, and the OpenMPI phantoms.

A phantom is drawn with signed distance functions on a canvas finer than the voxel grid and averaged down, so that a
shape thinner than a voxel keeps its total concentration. Everything is vectorised over the images of a batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError

Array = NDArray[np.float32]
SUPERSAMPLING = 3


@dataclass(frozen=True)
class Canvas:
    """Coordinates to draw on: x, y are (1, H, W) float32, isotropic, [-1, 1] along the longer side of the grid."""

    x: Array
    y: Array
    pixel: float

    @classmethod
    def of_grid(cls, grid: tuple[int, int], aspect: float = 1.0) -> "Canvas":
        """Canvas for a (ny, nx) grid whose voxels are ``aspect`` times as high as they are wide."""
        ny, nx = (n * SUPERSAMPLING for n in grid)
        height, width = ny * aspect, float(nx)
        pixel = 2.0 / max(height, width)
        x = (np.arange(nx) - (nx - 1) / 2) * pixel
        y = (np.arange(ny) - (ny - 1) / 2) * pixel * aspect
        return cls(x[None, None, :].astype(np.float32), y[None, :, None].astype(np.float32), pixel)

    def cover(self, distance: Array) -> Array:
        """Fraction of each pixel inside a shape, from its signed distance (negative inside)."""
        return np.asarray(np.clip(0.5 - distance / np.float32(self.pixel), 0.0, 1.0))

    def average(self, image: Array) -> Array:
        """Average canvas pixels (n, H, W) down to voxels (n, ny, nx)."""
        count, height, width = image.shape
        s = SUPERSAMPLING
        return np.asarray(image.reshape(count, height // s, s, width // s, s).mean(axis=(2, 4)))


# -- shapes: signed distances (n, H, W) from parameters (n,) ------------------------------------------------------


def _column(values: NDArray[np.floating]) -> Array:
    """(n,) -> (n, 1, 1), to broadcast against the canvas."""
    return np.asarray(values, dtype=np.float32)[:, None, None]


def _rotated(
    canvas: Canvas, cx: NDArray[np.floating], cy: NDArray[np.floating], angle: NDArray[np.floating]
) -> tuple[Array, Array]:
    x, y = canvas.x - _column(cx), canvas.y - _column(cy)
    cos, sin = _column(np.cos(angle)), _column(np.sin(angle))
    return cos * x + sin * y, cos * y - sin * x


def ellipse(
    canvas: Canvas,
    cx: NDArray[np.floating],
    cy: NDArray[np.floating],
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    angle: NDArray[np.floating],
) -> Array:
    """Approximate signed distance to ellipses with half axes a, b (exact for circles)."""
    u, v = _rotated(canvas, cx, cy, angle)
    return (np.sqrt((u / _column(a)) ** 2 + (v / _column(b)) ** 2) - 1) * _column(np.minimum(a, b))


def box(
    canvas: Canvas,
    cx: NDArray[np.floating],
    cy: NDArray[np.floating],
    a: NDArray[np.floating],
    b: NDArray[np.floating],
    angle: NDArray[np.floating],
) -> Array:
    """Signed distance (exact inside) to rectangles with half sides a, b."""
    u, v = _rotated(canvas, cx, cy, angle)
    return np.maximum(np.abs(u) - _column(a), np.abs(v) - _column(b))


def polyline(canvas: Canvas, points: NDArray[np.floating], radii: NDArray[np.floating]) -> Array:
    """Signed distance to tubes along polylines: points (n, P, 2), radii (n, P) interpolated along each segment."""
    best = np.full((len(points), canvas.y.shape[1], canvas.x.shape[2]), np.inf, dtype=np.float32)
    for start, end, r0, r1 in zip(
        points[:, :-1].swapaxes(0, 1), points[:, 1:].swapaxes(0, 1), radii[:, :-1].T, radii[:, 1:].T, strict=True
    ):
        step = end - start
        length = np.maximum((step**2).sum(axis=1), 1e-12)
        x, y = canvas.x - _column(start[:, 0]), canvas.y - _column(start[:, 1])
        along = np.clip((x * _column(step[:, 0]) + y * _column(step[:, 1])) / _column(length), 0.0, 1.0)
        distance = np.hypot(x - along * _column(step[:, 0]), y - along * _column(step[:, 1]))
        np.minimum(best, distance - (_column(r0) + along * _column(r1 - r0)), out=best)
    return best


# -- families: (rng, canvas, count) -> (count, H, W), values in [0, 1] ---------------------------------------------

Family = Callable[[np.random.Generator, Canvas, int], Array]


def _present(rng: np.random.Generator, count: int, index: int, most: int) -> NDArray[np.float64]:
    """1.0 where an image of the batch has a shape number ``index`` of at most ``most``, else 0.0."""
    return (rng.integers(1, most + 1, count) > index).astype(np.float64)


def _centres(rng: np.random.Generator, count: int, reach: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return rng.uniform(-reach, reach, count), rng.uniform(-reach, reach, count)


def _curve(rng: np.random.Generator, count: int, points: int, reach: float = 0.8) -> NDArray[np.float64]:
    """Random quadratic Bezier curves as polylines (count, points, 2)."""
    control = rng.uniform(-reach, reach, (3, count, 1, 2))
    t = np.linspace(0, 1, points)[None, :, None]
    return np.asarray((1 - t) ** 2 * control[0] + 2 * t * (1 - t) * control[1] + t**2 * control[2])


def vessels(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One to three curved, tapering vessels of differing uptake; the first may branch."""
    image = np.zeros((count, canvas.y.shape[1], canvas.x.shape[2]), dtype=np.float32)
    trunk = _curve(rng, count, 9)
    for index in range(3):
        points = _curve(rng, count, 9) if index else trunk
        if index == 1:  # a branch leaves the first vessel half-way along
            branch = rng.random(count) < 0.5
            points += np.where(branch[:, None], trunk[:, 4] - points[:, 0], 0.0)[:, None, :]
        radius = rng.uniform(0.02, 0.10, count)[:, None] * np.linspace(1, rng.uniform(0.4, 1.0), 9)
        uptake = rng.uniform(0.3, 1.0, count) * (_present(rng, count, index, 3) if index else 1.0)
        np.maximum(image, canvas.cover(polyline(canvas, points, radius)) * _column(uptake), out=image)
    return image


def tumours(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Tumours of graded uptake, some with a necrotic core, in clusters, fed by a vessel, over faint background."""
    image = np.zeros((count, canvas.y.shape[1], canvas.x.shape[2]), dtype=np.float32)
    fed = rng.uniform(0.1, 0.8, count) * (rng.random(count) < 0.5)
    vessel = polyline(canvas, _curve(rng, count, 7), np.tile(rng.uniform(0.02, 0.06, (count, 1)), 7))
    np.maximum(image, canvas.cover(vessel) * _column(fed), out=image)
    cluster_x, cluster_y = _centres(rng, count, 0.55)
    spread = rng.uniform(0.15, 0.6, count)
    for index in range(4):
        dx, dy = _centres(rng, count, 1.0)
        cx, cy = np.clip([cluster_x + dx * spread, cluster_y + dy * spread], -0.85, 0.85)
        a = rng.uniform(0.06, 0.32, count) * (1.0 if index == 0 else 0.7)
        b = a * rng.uniform(0.6, 1.0, count)
        distance = ellipse(canvas, cx, cy, a, b, rng.uniform(0, np.pi, count))
        lobes = 1 + 0.12 * np.sin(
            rng.integers(2, 6, count)[:, None, None] * np.arctan2(canvas.y - _column(cy), canvas.x - _column(cx))
            + _column(rng.uniform(0, 2 * np.pi, count))
        )
        distance = distance + _column(b) * (1 - lobes).astype(np.float32)
        rim = rng.uniform(0.0, 0.5, count) * (rng.random(count) < 0.6)
        graded = 1 - _column(rim) * np.clip(1 + distance / _column(b), 0, 1)  # uptake falls towards the edge
        core = (rng.random(count) < 0.3) * (a > 0.14)
        necrosis = canvas.cover(distance + _column(b * rng.uniform(0.3, 0.6, count)))
        graded = graded * (1 - necrosis * _column(core * rng.uniform(0.5, 1.0, count)))
        uptake = rng.uniform(0.3, 1.0, count) * (_present(rng, count, index, 4) if index else 1.0)
        np.maximum(image, canvas.cover(distance) * graded * _column(uptake), out=image)
    return image


def bars(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Two to five parallel bars of differing width, gap, length and uptake."""
    image = np.zeros((count, canvas.y.shape[1], canvas.x.shape[2]), dtype=np.float32)
    angle = rng.uniform(0, np.pi, count) * (rng.random(count) < 0.7)
    angle = angle + np.pi / 2 * (rng.random(count) < 0.5)
    width, gap = rng.uniform(0.03, 0.15, count), rng.uniform(0.05, 0.3, count)
    cx, cy = _centres(rng, count, 0.3)
    most = rng.integers(2, 6, count)
    for index in range(5):
        offset = (index - (most - 1) / 2) * (2 * width + gap)
        x, y = cx - offset * np.sin(angle), cy + offset * np.cos(angle)
        distance = box(canvas, x, y, rng.uniform(0.2, 0.6, count), width, angle)
        uptake = rng.uniform(0.4, 1.0, count) * (index < most)
        np.maximum(image, canvas.cover(distance) * _column(uptake), out=image)
    return image


def dots(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """One to nine discs or squares, graded like a dilution series or alike."""
    image = np.zeros((count, canvas.y.shape[1], canvas.x.shape[2]), dtype=np.float32)
    size, dilution = rng.uniform(0.04, 0.15, count), rng.uniform(0.5, 1.0, count)
    square, angle = rng.random(count) < 0.5, rng.uniform(0, np.pi, count)
    most = rng.integers(1, 10, count)
    for index in range(9):
        cx, cy = _centres(rng, count, 0.8)
        radius = size * rng.uniform(0.7, 1.3, count)
        disc = ellipse(canvas, cx, cy, radius, radius, angle)
        distance = np.where(square[:, None, None], box(canvas, cx, cy, radius, radius, angle), disc)
        uptake = dilution**index * rng.uniform(0.7, 1.0, count) * (index < most)
        np.maximum(image, canvas.cover(distance) * _column(uptake), out=image)
    return image


def letters(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Letter-like figures: up to four straight strokes between the points of a 3 x 3 lattice."""
    lattice = np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]), axis=-1).reshape(9, 2)
    size = rng.uniform(0.2, 0.65, (count, 1, 2))
    centre = rng.uniform(-0.3, 0.3, (count, 1, 2))
    width = rng.uniform(0.03, 0.12, (count, 1))
    image = np.zeros((count, canvas.y.shape[1], canvas.x.shape[2]), dtype=np.float32)
    last = rng.integers(0, 9, count)
    for index in range(4):
        following = (last + rng.integers(1, 9, count)) % 9
        points = lattice[np.stack([last, following], axis=1)] * size + centre
        stroke = canvas.cover(polyline(canvas, points, np.repeat(width, 2, axis=1)))
        present = _present(rng, count, index, 5) if index else np.ones(count)
        np.maximum(image, stroke * _column(present), out=image)
        last = np.where(rng.random(count) < 0.75, following, rng.integers(0, 9, count))
    return image * _column(rng.uniform(0.5, 1.0, count))


def regions(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Large overlapping ellipses and polygons of differing concentration, holes included: organs, chambers."""
    image = np.zeros((count, canvas.y.shape[1], canvas.x.shape[2]), dtype=np.float32)
    for index in range(4):
        cx, cy = _centres(rng, count, 0.5)
        a, b = rng.uniform(0.1, 0.6, count), rng.uniform(0.1, 0.6, count)
        angle = rng.uniform(0, np.pi, count)
        shapes = np.stack([ellipse(canvas, cx, cy, a, b, angle), box(canvas, cx, cy, a, b, angle)])
        third = ellipse(canvas, cx, cy, a, a, angle)
        half_plane = _rotated(canvas, cx, cy, angle + 1.0)[0] - _column(a * rng.uniform(-0.5, 0.5, count))
        wedge = np.maximum(third, half_plane)
        kind = rng.integers(0, 3, count)[:, None, None]
        distance = np.where(kind == 0, shapes[0], np.where(kind == 1, shapes[1], wedge))
        inside = canvas.cover(distance) * _column(_present(rng, count, index, 4) if index else np.ones(count))
        value = _column(rng.uniform(0.0, 1.0, count) if index else rng.uniform(0.4, 1.0, count))
        image += inside * (value - image)
    return image


def fields(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Smooth random fields, thresholded or graded: diffuse distributions that no list of shapes contains."""
    height, width = canvas.y.shape[1], canvas.x.shape[2]
    ky = np.fft.fftfreq(height, canvas.pixel)[None, :, None]
    kx = np.fft.rfftfreq(width, canvas.pixel)[None, None, :]
    length = _column(rng.uniform(0.06, 0.3, count))
    spectrum = np.fft.rfft2(rng.standard_normal((count, height, width))) * np.exp(
        -2 * (np.pi * length) ** 2 * (kx**2 + ky**2)
    )
    smooth = np.fft.irfft2(spectrum, s=(height, width)).astype(np.float32)
    smooth /= smooth.std(axis=(1, 2), keepdims=True)
    level = _column(rng.uniform(0.0, 1.5, count))
    sharpness = _column(np.exp(rng.uniform(np.log(0.5), np.log(30.0), count)))
    value = np.clip((smooth - level) * sharpness, 0.0, 1.0)
    a, b = rng.uniform(0.4, 1.0, count), rng.uniform(0.4, 1.0, count)
    cx, cy = _centres(rng, count, 0.3)
    window = ellipse(canvas, cx, cy, a, b, rng.uniform(0, np.pi, count))
    return np.asarray(value * canvas.cover(window) * _column(rng.uniform(0.4, 1.0, count)))


# -- the OpenMPI phantoms, as plane sections in the 38 mm field of view (19 mm = 1.0); never used for training -----


def openmpi_shape(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Section along the axis of the shape phantom: a cone, 22 mm long, 10 degrees apex, 1 mm tip radius."""
    cx, cy = _centres(rng, count, 0.1)
    angle = rng.choice(np.arange(4) * np.pi / 2, count) + rng.uniform(-0.2, 0.2, count)
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    centre = np.stack([cx, cy], axis=1)
    points = centre[:, None] + direction[:, None] * (np.array([-11.0, 11.0]) / 19)[None, :, None]
    tip = 1.0 / 19
    base = tip + 22.0 / 19 * np.tan(np.deg2rad(10))
    cone = polyline(canvas, points, np.tile([tip, base], (count, 1)))
    u, _ = _rotated(canvas, cx, cy, angle)
    return canvas.cover(np.maximum(cone, u - np.float32(11.0 / 19)))


def openmpi_resolution(rng: np.random.Generator, canvas: Canvas, count: int) -> Array:
    """Section through the resolution phantom: tubes that leave a common origin at 20 and 30 degrees."""
    image = np.zeros((count, canvas.y.shape[1], canvas.x.shape[2]), dtype=np.float32)
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
    image = np.zeros((count, canvas.y.shape[1], canvas.x.shape[2]), dtype=np.float32)
    cx, cy = _centres(rng, count, 0.1)
    first, dilution = rng.permuted(np.tile(np.arange(4), (count, 1)), axis=1), 1 / 1.5
    half, side = np.full(count, 6.0 / 19), np.full(count, 1.0 / 19)
    for index, (sx, sy) in enumerate([(-1, -1), (1, -1), (-1, 1), (1, 1)]):
        cube = box(canvas, cx + sx * half, cy + sy * half, side, side, np.zeros(count))
        np.maximum(image, canvas.cover(cube) * _column(dilution ** first[:, index]), out=image)
    return image


TRAINING_FAMILIES: dict[str, Family] = {
    "tumours": tumours,
    "vessels": vessels,
    "bars": bars,
    "dots": dots,
    "letters": letters,
    "regions": regions,
    "fields": fields,
}
OPENMPI_FAMILIES: dict[str, Family] = {
    "shape": openmpi_shape,
    "resolution": openmpi_resolution,
    "concentration": openmpi_concentration,
}
FAMILIES: dict[str, Family] = TRAINING_FAMILIES | OPENMPI_FAMILIES


def generate(
    family: str | Sequence[str],
    count: int,
    grid: tuple[int, int] = (19, 19),
    seed: int | np.random.Generator = 0,
    aspect: float = 1.0,
) -> Array:
    """Draw phantoms.

    Parameters
    ----------
    family : str or sequence of str
        Name(s) from ``FAMILIES``; several take equal turns: image i is of family ``i % len(family)``.
    count : int
        Number of images.
    grid : (ny, nx)
        Number of voxels.
    seed : int or numpy Generator
        The same seed gives the same images.
    aspect : float
        Height over width of a voxel.

    Returns
    -------
    (count, ny, nx) float32 in [0, 1]: concentration relative to the delta sample.

    Raises
    ------
    InputError
        For an unknown family, a negative count or an empty grid.
    """
    names = [family] if isinstance(family, str) else list(family)
    unknown = [name for name in names if name not in FAMILIES]
    if unknown or not names:
        raise InputError(f"phantom family {unknown or names}: expected some of {', '.join(FAMILIES)}")
    if count < 0 or min(grid) < 1 or not aspect > 0:
        raise InputError(f"phantoms: count {count}, grid {grid}, aspect {aspect}: expected positive numbers")
    rng = np.random.default_rng(seed)
    canvas = Canvas.of_grid(grid, aspect)
    images = np.empty((count, *grid), dtype=np.float32)
    for index, name in enumerate(names):
        share = len(range(index, count, len(names)))
        for start in range(0, share, 64):  # 64 at a time keep the canvas arrays in cache
            size = min(64, share - start)
            drawn = canvas.average(FAMILIES[name](rng, canvas, size))
            images[index + start * len(names) :: len(names)][:size] = drawn
    return images
