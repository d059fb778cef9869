"""The canvas that phantoms are drawn on: finer than the voxels, and averaged down to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]
Numbers = NDArray[np.floating]
SUPERSAMPLING = {2: 3, 3: 2}  # canvas pixels per voxel and axis, by number of dimensions, where voxels are cubes


@dataclass(frozen=True)
class Canvas:
    """Coordinates to draw on, isotropic, from -1 to 1 along the longest side of the grid.

    Attributes
    ----------
    coordinates : tuple of Array
        Coordinates x, y and, in volumes, z, each along its own axis of images [image, (z,) y, x]: x is (1, 1, W), y (1,
        H, 1).
    pixel : float
        Size of a canvas pixel: the edges of shapes are that wide.
    factors : tuple of int
        Canvas pixels per voxel along the axes of the grid, ((z,) y, x).
    extent : (d,) float64
        Half the sides of the grid along x, y and z: 1 for the longest one.
    """

    coordinates: tuple[Array, ...]
    pixel: float
    factors: tuple[int, ...]
    extent: NDArray[np.float64]

    @classmethod
    def of_grid(cls, grid: tuple[int, ...], aspect: float | Sequence[float] = 1.0) -> "Canvas":
        """Canvas for a grid of voxels.

        Parameters
        ----------
        grid : (ny, nx) or (nz, ny, nx)
        aspect : float or sequence of float
            Height, or depth and height, of a voxel over its width; one number is used for both.
        """
        dimensions = len(grid)
        voxel = np.append(np.broadcast_to(np.asarray(aspect, dtype=np.float64), dimensions - 1), 1.0)
        # Approximately cubic pixels, with about the same number per voxel for any shape.
        target = np.prod(voxel) ** (1 / dimensions) / SUPERSAMPLING[dimensions]
        factors = np.maximum(1, np.round(voxel / target)).astype(int)
        steps = (voxel / factors) / (voxel[-1] / factors[-1])  # relative to a pixel's width
        counts = np.asarray(grid) * factors
        width = 2.0 / (counts * steps).max()
        coordinates = []
        for axis, (count, step) in enumerate(zip(counts, steps, strict=True)):
            along = ((np.arange(count) - (count - 1) / 2) * width * step).astype(np.float32)
            coordinates.append(along.reshape(1, *(-1 if a == axis else 1 for a in range(dimensions))))
        return cls(
            tuple(coordinates[::-1]),
            float(width * steps.max()),
            tuple(factors.tolist()),
            (counts * steps / (counts * steps).max())[::-1],
        )

    @property
    def x(self) -> Array:
        """Coordinates across."""
        return self.coordinates[0]

    @property
    def y(self) -> Array:
        """Coordinates down."""
        return self.coordinates[1]

    @property
    def size(self) -> float:
        """Half the side of a square or cube as large as the grid."""
        return float(np.prod(self.extent) ** (1 / self.dimensions))

    @property
    def dimensions(self) -> int:
        """2 for planes, 3 for volumes."""
        return len(self.coordinates)

    @property
    def shape(self) -> tuple[int, ...]:
        """Pixels along the axes of the grid, ((z,) y, x)."""
        return tuple(c.size for c in self.coordinates[::-1])

    def blank(self, count: int) -> Array:
        """(count, *shape) zeros."""
        return np.zeros((count, *self.shape), dtype=np.float32)

    def per_image(self, values: ArrayLike) -> Array:
        """One number per image, (n,) to (n, 1, 1) or (n, 1, 1, 1), to broadcast against the canvas."""
        return np.asarray(values, dtype=np.float32).reshape(-1, *(1,) * self.dimensions)

    def cover(self, distance: Array) -> Array:
        """Fraction of each pixel inside a shape, from its signed distance (negative inside)."""
        return np.asarray(np.clip(0.5 - distance / np.float32(self.pixel), 0.0, 1.0))

    def average(self, image: Array) -> Array:
        """Average canvas pixels (n, *shape) down to voxels (n, *grid)."""
        split = [n for size, s in zip(self.shape, self.factors, strict=True) for n in (size // s, s)]
        return np.asarray(image.reshape(len(image), *split).mean(axis=tuple(range(2, len(split) + 1, 2))))


Family = Callable[[np.random.Generator, Canvas, int], Array]  # count images (count, *canvas.shape), values in [0, 1]
