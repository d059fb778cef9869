"""Views of an image: a plane is shown directly, a volume by three views along its axes, like a technical drawing.

A tile is the part of a figure for one image. The tile of a volume [z, y, x] has three panels of the same scale, so that
aligned points of two panels are the same place::

    z|x  z|y    seen along y, and along x
    y|x         seen along z; the corner beside it is free for a scale bar

Vertical axes point up, horizontal ones to the right.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Way = Literal["projection", "centre"]  # how a volume becomes a plane; a plane stays as it is
GAP = 0.06  # inches between the panels of a tile
SLIMMEST, TALLEST = 0.3, 3.0  # limits of the height of tiles over their width


@dataclass(frozen=True)
class Panel:
    """One view: names of its vertical and horizontal axis, size in mm along them, and its place in inches.

    ``along`` is the axis of the volume, counted from its end, of the viewing direction; None for a plane.
    """

    axes: str
    size: tuple[float, float]
    left: float
    bottom: float
    width: float
    height: float
    along: int | None = None

    def of(self, images: NDArray[Any], way: Way) -> NDArray[Any]:
        """The view of images (..., ny, nx) or volumes (..., nz, ny, nx) in this panel."""
        if self.along is None:
            return images
        return projected(images, self.along) if way == "projection" else central(images, self.along)


@dataclass(frozen=True)
class Tile:
    """The panels of one image, and their total size in inches; volumes have a scale in mm per inch."""

    panels: tuple[Panel, ...]
    width: float
    height: float
    mm_per_inch: float | None = None

    @classmethod
    def of(cls, field_of_view: tuple[float, ...], axes: str | None, width: float) -> "Tile":
        """The tile of images with this field of view in m and these axes, both in the order of the arrays' axes."""
        names, size = axes or "zyx"[-len(field_of_view) :], [1e3 * length for length in field_of_view]
        if len(size) == 2:
            height = width * min(max(size[0] / size[1], SLIMMEST), TALLEST)
            return cls((Panel(names, (size[0], size[1]), 0.0, 0.0, width, height),), width, height)
        (z, y, x), (deep, high, wide) = tuple(names), size
        scale = max((wide + high) / (width - GAP), (high + deep) / (TALLEST * width - GAP))
        # Panels of thin slabs would be too small. They get a minimum size, in which Matplotlib centres them
        # undistorted.
        across, aside, up, above = (max(length / scale, 0.15) for length in (wide, high, high, deep))
        panels = (
            Panel(z + x, (deep, wide), 0.0, up + GAP, across, above, -2),
            Panel(z + y, (deep, high), across + GAP, up + GAP, aside, above, -1),
            Panel(y + x, (high, wide), 0.0, 0.0, across, up, -3),
        )
        return cls(panels, across + GAP + aside, up + GAP + above, scale)

    @property
    def scale_bar(self) -> float:
        """Length in mm of a scale bar for the free corner: 1, 2 or 5 times a power of ten."""
        room = 0.6 * min(panel.size[1] for panel in self.panels)
        decade = 10.0 ** np.floor(np.log10(room))
        return float(max(step * decade for step in (1, 2, 5) if step * decade <= room))


def projected(volumes: NDArray[Any], axis: int) -> NDArray[Any]:
    """The value of the largest magnitude along an axis, which is the maximum if nothing is negative."""
    largest, smallest = volumes.max(axis=axis), volumes.min(axis=axis)
    return np.asarray(np.where(largest >= -smallest, largest, smallest))


def central(volumes: NDArray[Any], axis: int) -> NDArray[Any]:
    """The slice in the middle of an axis; for an even number of voxels, the slice after it."""
    return np.asarray(volumes.take(volumes.shape[axis] // 2, axis=axis))


def offset(count: int, length: float) -> float:
    """Position of the central slice of ``count`` slices, relative to the middle of their length."""
    return (count // 2 + 0.5 - count / 2) * length / count
