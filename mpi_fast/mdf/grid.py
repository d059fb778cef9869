"""Voxels of a plane or a volume, and their place in space."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from mpi_fast.mdf.array_types import IntArray, Triple


@dataclass(frozen=True)
class Grid:
    """Voxels on a regular grid, a volume [z, y, x] or one plane of it [row, column], with its position in space.

    In a plane, rows follow the later of its two axes and columns the earlier one, so a z plane is [y, x].

    Attributes
    ----------
    normal : str
        The axis, x, y or z, perpendicular to a plane; "" for a volume.
    size : tuple of int
        Voxels along x, y, z; 1 along `normal`.
    extent, center : tuple of float
        Size and centre along x, y, z in m; along `normal` the slice thickness, 0 if it is unknown, and position.
    voxels : int64 array (N,)
        Index of each voxel, with the last axis of the image fastest, among the foreground frames of a calibration.
    """

    normal: str
    size: tuple[int, int, int]
    extent: Triple
    center: Triple
    voxels: IntArray = field(repr=False, compare=False)

    @classmethod
    def regular(
        cls, shape: tuple[int, ...], field_of_view: tuple[float, ...], center: Triple = (0.0, 0.0, 0.0)
    ) -> Grid:
        """Return a volume, or a z plane as thick as the distance of columns.

        Parameters
        ----------
        shape : (nz, ny, nx) or (ny, nx)
        field_of_view : (fz, fy, fx) or (fy, fx)
            In m.
        center : (x, y, z)
            In m.
        """
        nz, ny, nx = (1,) * (3 - len(shape)) + shape
        fz, fy, fx = (field_of_view[-1] / nx,) * (3 - len(shape)) + field_of_view
        voxels = np.arange(nz * ny * nx, dtype=np.int64)
        return cls("z" if len(shape) == 2 else "", (nx, ny, nz), (fx, fy, fz), center, voxels)

    @property
    def axes(self) -> str:
        """The axes of the image: "yx" for a z plane, "zyx" for a volume."""
        return "zyx".replace(self.normal, "")

    @property
    def shape(self) -> tuple[int, ...]:
        """Voxels along the axes of the image: (ny, nx) for a z plane, (nz, ny, nx) for a volume."""
        return tuple(self.size["xyz".index(axis)] for axis in self.axes)

    @property
    def field_of_view(self) -> tuple[float, ...]:
        """Size of the image in m along its axes: (fy, fx) for a z plane."""
        return tuple(self.extent["xyz".index(axis)] for axis in self.axes)

    @property
    def voxel_size(self) -> tuple[float, ...]:
        """Size of a voxel in m along the axes of the image."""
        return tuple(length / count for length, count in zip(self.field_of_view, self.shape, strict=True))
