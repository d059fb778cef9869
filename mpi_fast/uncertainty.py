"""Intervals of voxels, from the expected size of their errors and the shape of the error distribution.

The expected size of an error is its root-mean-square over all images that explain the signals equally well. Errors of
sparse images are not normal: most are far smaller than this size, and few are larger. Two quantiles describe the
distribution in a frame: the ratios of error to expected size that half and 95 % of the errors do not exceed. Other
quantiles follow the Weibull distribution through both, ``(log 1 / (1 - level))^(1 / k)``.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError

LEVELS = 0.5, 0.95
NORMAL = 0.674, 1.960  # the quantiles of normal errors


def half_width(std: NDArray[np.float32], quantiles: NDArray[np.float32] | None, level: float) -> NDArray[np.float32]:
    """Half-width of the intervals that contain the truth in a share of a frame's voxels.

    Parameters
    ----------
    std : (F, *grid) float32
        Expected size of the errors.
    quantiles : (F, 2) float32, or None
        Quantiles of the errors at `LEVELS`, in units of std; None for normal errors.
    level : float
        Share of the voxels, between 0 and 1.

    Returns
    -------
    (F, *grid) float32, in the unit of std.

    Raises
    ------
    InputError
        For a level that is not between 0 and 1.
    """
    if not 0 < level < 1:
        raise InputError(f"level {level}: expected a number between 0 and 1")
    half, most = np.asarray(NORMAL if quantiles is None else quantiles, np.float64).reshape(-1, 2).T
    rarity = np.log(-np.log1p(-np.asarray([level, *LEVELS])))
    along = (rarity[0] - rarity[1]) / (rarity[2] - rarity[1])
    factor: NDArray[Any] = half * (most / half) ** along
    return np.asarray(std * factor.reshape(-1, *(1,) * (std.ndim - 1)), dtype=np.float32)
