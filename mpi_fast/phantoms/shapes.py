"""Shapes in two and three dimensions: signed distances (n, *canvas.shape) from parameters (n, ...).

Points are (x, y) or (x, y, z). Everything is vectorised over the images of a batch.
"""

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from mpi_fast.phantoms.canvas import Array, Canvas, Numbers


def local_coordinates(canvas: Canvas, centre: Numbers, rotation: Numbers) -> list[Array]:
    """Coordinates in local frames: centre (n, d), rotation (n, d, d) whose rows are the axes of the frames."""
    offsets = [c - canvas.per_image(centre[:, axis]) for axis, c in enumerate(canvas.coordinates)]
    return [
        reduce(np.add, [canvas.per_image(row[:, axis]) * offset for axis, offset in enumerate(offsets)])
        for row in rotation.swapaxes(0, 1)
    ]


def ellipsoid(canvas: Canvas, centre: Numbers, half: Numbers, rotation: Numbers) -> Array:
    """Approximate signed distance to ellipsoids with half axes (n, d) (exact for spheres)."""
    local = local_coordinates(canvas, centre, rotation)
    squares = [(u / canvas.per_image(half[:, axis])) ** 2 for axis, u in enumerate(local)]
    return np.asarray((np.sqrt(reduce(np.add, squares)) - 1) * canvas.per_image(half.min(axis=1)))


def cuboid(canvas: Canvas, centre: Numbers, half: Numbers, rotation: Numbers) -> Array:
    """Signed distance (exact inside) to boxes with half sides (n, d)."""
    local = local_coordinates(canvas, centre, rotation)
    return np.asarray(reduce(np.maximum, [np.abs(u) - canvas.per_image(half[:, axis]) for axis, u in enumerate(local)]))


def polyline(canvas: Canvas, points: Numbers, radii: Numbers) -> Array:
    """Signed distance to tubes along polylines: points (n, P, d), radii (n, P) interpolated along each segment."""
    best = np.full((len(points), *canvas.shape), np.inf, dtype=np.float32)
    for start, end, r0, r1 in zip(
        points[:, :-1].swapaxes(0, 1), points[:, 1:].swapaxes(0, 1), radii[:, :-1].T, radii[:, 1:].T, strict=True
    ):
        tube(canvas, start, end, r0, r1, best)
    return best


def tube(canvas: Canvas, start: Numbers, end: Numbers, r0: Numbers, r1: Numbers, best: Array) -> None:
    """Lower ``best`` to the signed distance to tubes from start to end, (n, d), of radii r0 to r1, (n,).

    In a volume only voxels within a pixel of the tubes are computed, because the others are never `cover`ed.
    """
    if canvas.dimensions == 2:
        _lower(canvas, canvas.coordinates, start, end, r0, r1, best)
        return
    margin = (np.maximum(r0, r1) + canvas.pixel)[:, None]
    limits = np.stack([np.minimum(start, end) - margin, np.maximum(start, end) + margin], axis=-1)  # (n, d, 2)
    for image, reach in enumerate(limits):
        window = [slice(*np.searchsorted(c.ravel(), ends)) for c, ends in zip(canvas.coordinates, reach, strict=True)]
        near = tuple(window[::-1])
        coordinates = tuple(
            c[(slice(None), *(s if c.shape[a + 1] > 1 else slice(None) for a, s in enumerate(near)))]
            for c in canvas.coordinates
        )
        one = slice(image, image + 1)
        _lower(canvas, coordinates, start[one], end[one], r0[one], r1[one], best[(one, *near)])


def _lower(
    canvas: Canvas, coordinates: tuple[Array, ...], start: Numbers, end: Numbers, r0: Numbers, r1: Numbers, best: Array
) -> None:
    """`tube` on a part of the canvas."""
    step = end - start
    length = np.maximum((step**2).sum(axis=1), 1e-12)
    offsets = [c - canvas.per_image(start[:, axis]) for axis, c in enumerate(coordinates)]
    steps = [canvas.per_image(step[:, axis]) for axis in range(canvas.dimensions)]
    along = reduce(np.add, [u * s for u, s in zip(offsets, steps, strict=True)])
    along = np.clip(along / canvas.per_image(length), 0.0, 1.0)
    distance = reduce(np.hypot, [u - along * s for u, s in zip(offsets, steps, strict=True)])
    np.minimum(best, distance - (canvas.per_image(r0) + along * canvas.per_image(r1 - r0)), out=best)


def smooth_field(rng: np.random.Generator, canvas: Canvas, count: int, length: Numbers) -> Array:
    """Gaussian random fields of mean zero and variance one, smooth over ``length`` (n,)."""
    axes = tuple(range(1, canvas.dimensions + 1))
    frequencies = [np.fft.fftfreq(size, canvas.pixel) for size in canvas.shape]
    frequencies[-1] = np.fft.rfftfreq(canvas.shape[-1], canvas.pixel)
    square = reduce(np.add, [k**2 for k in np.meshgrid(*frequencies, indexing="ij", sparse=True)][::-1])
    noise = np.fft.rfftn(rng.standard_normal((count, *canvas.shape)), axes=axes)
    spectrum = noise * np.exp(-2 * (np.pi * canvas.per_image(length)) ** 2 * square)
    smooth = np.fft.irfftn(spectrum, s=canvas.shape, axes=axes).astype(np.float32)
    return np.asarray(smooth / np.maximum(smooth.std(axis=axes, keepdims=True), np.float32(1e-6)))


# -- planes: the same with numbers instead of vectors ---------------------------------------------------------------


def rotation(angle: Numbers) -> NDArray[np.float64]:
    """(n,) angles to (n, 2, 2) rotations for `local_coordinates`."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], axis=1)


def ellipse(canvas: Canvas, cx: Numbers, cy: Numbers, a: Numbers, b: Numbers, angle: Numbers) -> Array:
    """Approximate signed distance to ellipses with half axes a, b (exact for circles)."""
    return ellipsoid(canvas, np.stack([cx, cy], -1), np.stack([a, b], -1), rotation(angle))


def box(canvas: Canvas, cx: Numbers, cy: Numbers, a: Numbers, b: Numbers, angle: Numbers) -> Array:
    """Signed distance (exact inside) to rectangles with half sides a, b."""
    return cuboid(canvas, np.stack([cx, cy], -1), np.stack([a, b], -1), rotation(angle))


# -- chance -------------------------------------------------------------------------------------------------------


def present(rng: np.random.Generator, count: int, index: int, most: int) -> NDArray[np.float64]:
    """1.0 if an image of the batch has a shape number ``index`` of at most ``most``, otherwise 0.0."""
    return (rng.integers(1, most + 1, count) > index).astype(np.float64)


def random_points(rng: np.random.Generator, canvas: Canvas, count: int, reach: float) -> NDArray[np.float64]:
    """Random points (n, d), uniform within ``reach`` times the grid."""
    return np.stack([rng.uniform(-reach, reach, count) * extent for extent in canvas.extent], axis=-1)


def random_rotations(rng: np.random.Generator, canvas: Canvas, count: int) -> NDArray[np.float64]:
    """Random rotations (n, d, d), uniform."""
    if canvas.dimensions == 2:
        return rotation(rng.uniform(0, np.pi, count))
    frame, triangle = np.linalg.qr(rng.standard_normal((count, 3, 3)))
    return np.asarray(frame * np.sign(np.diagonal(triangle, axis1=1, axis2=2))[:, None, :])


def bezier(rng: np.random.Generator, canvas: Canvas, count: int, points: int) -> NDArray[np.float64]:
    """Random quadratic Bezier curves as polylines (count, points, d)."""
    control = rng.uniform(-0.8, 0.8, (3, count, 1, canvas.dimensions)) * canvas.extent
    t = np.linspace(0, 1, points)[None, :, None]
    return np.asarray((1 - t) ** 2 * control[0] + 2 * t * (1 - t) * control[1] + t**2 * control[2])
