"""Slices of images, which a block's convolutions see: a plane is one, a volume is cut along one of its axes."""

from dataclasses import dataclass

import numpy as np

from mpi_fast.constants import orientation
from mpi_fast.grids import is_plane


@dataclass(frozen=True)
class Slices:
    """A cut of images whose voxels are in MDF order, x fastest; see slices.cuh.

    Attributes
    ----------
    count, rows, columns : int
        Slices of an image, and the pixels of each.
    strides : (slice, row, column)
        Voxels from one to the next; from slice to slice 0 where there is one.
    """

    count: int
    rows: int
    columns: int
    strides: tuple[int, int, int]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    @property
    def half(self) -> tuple[int, int]:
        """Rows and columns at half resolution."""
        return -(-self.rows // 2), -(-self.columns // 2)

    @property
    def arguments(self) -> tuple[np.int32, ...]:
        """As kernels take them: rows, columns, and the three strides."""
        return tuple(map(np.int32, (self.rows, self.columns, *self.strides)))


def slices(grid: tuple[int, ...], block: int) -> Slices:
    """The slices that a block of the network sees.

    Parameters
    ----------
    grid : (ny, nx) or (nz, ny, nx)
        Number of voxels.
    block : int
        Which, from 0.
    """
    rows, columns = grid[-2:]
    if is_plane(grid):
        return Slices(1, rows, columns, (0, columns, 1))
    sizes, strides = (1, *grid), (0, rows * columns, columns, 1)  # of axes [., z, y, x]
    along, down, across = orientation(block)
    return Slices(sizes[along], sizes[down], sizes[across], (strides[along], strides[down], strides[across]))
