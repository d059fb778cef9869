"""The symmetries of a grid: flips, and on a square one transposes, which turn images into others that are as likely.

The network is not built to treat them alike, it has only learned to (`training.data` shows it all of them). So what it
does wrong differs from one to the next.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray


@cache
def symmetries(grid: tuple[int, ...]) -> NDArray[np.intp]:
    """Where each symmetry shows each voxel: ``shown[..., where[k]] = image`` and ``image = shown[..., where[k]]``.

    Their numbers are binary: 1 reverses the order of the rows, 2 that of the columns, 4 then exchanges the two.

    Parameters
    ----------
    grid : (ny, nx)
        Image size.

    Returns
    -------
    (8, ny * nx) for a square grid, (4, ny * nx) for any other; read-only
    """
    y, x = np.indices(grid)
    ny, nx = grid
    where = []
    for number in range(8 if ny == nx else 4):
        row, column = (ny - 1 - y if number & 1 else y), (nx - 1 - x if number & 2 else x)
        where.append(column * ny + row if number & 4 else row * nx + column)
    found = np.stack(where).reshape(-1, ny * nx)
    found.flags.writeable = False
    return found
