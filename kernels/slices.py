"""Slices of images, to which a network block applies its convolutions.

A plane is a single slice, and a volume is cut into slices along one of its axes.
"""

from dataclasses import dataclass

import numpy as np

from mpi_fast.constants import orientation
from mpi_fast.grids import is_plane


@dataclass(frozen=True)
class Slices:
    """Slices of images whose voxels are in MDF order, x fastest; see slices.cuh.

    Attributes
    ----------
    count, rows, columns : int
        Number of slices of an image, and the rows and columns of each slice.
    strides : (slice, row, column)
        Number of voxels from one slice, row or column to the next; the first is 0 for planes.
    """

    count: int
    rows: int
    columns: int
    strides: tuple[int, int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a slice."""
        return self.rows, self.columns

    @property
    def half(self) -> tuple[int, int]:
        """Rows and columns of a slice at half resolution."""
        return -(-self.rows // 2), -(-self.columns // 2)

    @property
    def arguments(self) -> tuple[np.int32, ...]:
        """Arguments of kernels: rows, columns, and the three strides."""
        return tuple(map(np.int32, (self.rows, self.columns, *self.strides)))


def slices(grid: tuple[int, ...], block: int) -> Slices:
    """The slices to which a network block applies its convolutions.

    Parameters
    ----------
    grid : (ny, nx) or (nz, ny, nx)
        Number of voxels.
    block : int
        Number of the network block, counted from 0.
    """
    rows, columns = grid[-2:]
    if is_plane(grid):
        return Slices(1, rows, columns, (0, columns, 1))
    sizes, strides = (1, *grid), (0, rows * columns, columns, 1)  # of axes [., z, y, x]
    along, down, across = orientation(block)
    return Slices(sizes[along], sizes[down], sizes[across], (strides[along], strides[down], strides[across]))
