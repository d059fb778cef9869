"""Intervals of voxels: from the size of their errors, and how heavy the tails of the errors are.

The size of an error is its root-mean-square over all images that explain the signals alike. Errors of sparse images are
not normal: most are far smaller than that, few are larger. Two quantiles of the errors next to their sizes say how a
frame's are spread, what half and what 95 % of them do not exceed. Between and beyond these the quantile follows
Weibull's distribution through both, ``(log 1 / (1 - level))^(1 / k)``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError

LEVELS = 0.5, 0.95
NORMAL = 0.674, 1.960  # the quantiles of normal errors


def half_width(std: NDArray[np.float32], quantiles: NDArray[np.float32] | None, level: float) -> NDArray[np.float32]:
    """How far to either side of the image an interval reaches that holds a share of a frame's voxels.

    Parameters
    ----------
    std : (F, *grid) float32
        The size of the errors.
    quantiles : (F, 2) float32, or None
        At `LEVELS`, next to std; None for normal errors.
    level : float
        Share of the voxels that are to be held, between 0 and 1.

    Returns
    -------
    (F, *grid) float32, in the unit of std.

    Raises
    ------
    InputError
        For a level that is no share.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level}: expected a number between 0 and 1")
    half, most = np.asarray(NORMAL if quantiles is None else quantiles, np.float64).reshape(-1, 2).T
    rarity = np.log(-np.log1p(-np.asarray([level, *LEVELS])))
    along = (rarity[0] - rarity[1]) / (rarity[2] - rarity[1])
    factor: NDArray[Any] = half * (most / half) ** along
    return np.asarray(std * factor.reshape(-1, *(1,) * (std.ndim - 1)), dtype=np.float32)
