"""A plane of voxels and its place in space."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mpi_fast.mdf.types import IntArray, Triple


@dataclass(frozen=True)
class Grid:
    """One plane of voxels: an image [row, column] with the place it has in space.

    Rows run along the later, columns along the earlier of the two axes in the plane, so a z plane is [y, x].

    Attributes
    ----------
    normal : str
        The axis, x, y or z, perpendicular to the plane.
    size : tuple of int
        Voxels along x, y, z; 1 along `normal`.
    extent, center : tuple of float
        Size and centre of the plane along x, y, z in m; along `normal` the slice thickness and position.
    voxels : int64 array (rows * columns,)
        Where each pixel, row by row, lies among a calibration's foreground frames.
    """

    normal: str
    size: tuple[int, int, int]
    extent: Triple
    center: Triple
    voxels: IntArray = field(repr=False, compare=False)

    @classmethod
    def flat(cls, shape: tuple[int, int], field_of_view: tuple[float, float], center: Triple = (0.0, 0.0, 0.0)) -> Grid:
        """Return a z plane of `shape` (ny, nx) and `field_of_view` (fy, fx) in m, one column pitch thick."""
        (ny, nx), (fy, fx) = shape, field_of_view
        return cls("z", (nx, ny, 1), (fx, fy, fx / nx), center, np.arange(ny * nx, dtype=np.int64))

    @property
    def axes(self) -> str:
        """The axes of rows and columns: "yx" for a z plane."""
        return "zyx".replace(self.normal, "")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image: (ny, nx) for a z plane."""
        row, column = map("xyz".index, self.axes)
        return self.size[row], self.size[column]

    @property
    def field_of_view(self) -> tuple[float, float]:
        """Size of the image in m along rows and columns: (fy, fx) for a z plane."""
        row, column = map("xyz".index, self.axes)
        return self.extent[row], self.extent[column]
