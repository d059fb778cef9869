"""Refinement: a second evaluation of the network takes the first image as a noisy image and improves it.

The first evaluation of a frame gives an image and the expected size of its errors. The second evaluation gets this
image in place of a sampler's noisy image ``x_t``, with ``sigma_t`` the root-mean-square of these errors. The network
was trained for this (self-conditioning: Chen, Zhang and Hinton, "Analog bits", ICLR 2023). It also estimates the errors
of the second image.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def own_precision(std: Array, scale: Array) -> Array:
    """``1 / sigma_t^2`` of an image with these errors.

    Parameters
    ----------
    std : (F, N) float32
        Expected error of each voxel.
    scale : (F,) float32
        Scale of the frame's image (`likelihood.signal_scale`), which is the unit of the precision.

    Returns
    -------
    (F,) float32; zero for a frame of zeros, which has no errors.
    """
    # In float64, because squares of images below 1e-20 vanish in float32; the kernel refine does the same.
    square = np.square(std, dtype=np.float64).mean(axis=1)
    ratio = np.divide(np.square(scale, dtype=np.float64), square, out=np.zeros_like(square), where=square > 0)
    return np.asarray(ratio, dtype=np.float32)
