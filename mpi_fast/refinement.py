"""Shown its own image as a noisy one, the network makes a better one.

The first evaluation of a frame gives an image and the size of its errors. A second one gets that image as what a
sampler's noisy image is, ``x_t`` with ``sigma_t`` the root-mean-square of these errors, and goes on from there; the
network was trained for it (self-conditioning: Chen, Zhang and Hinton, "Analog bits", ICLR 2023). What the errors of the
second image are, it says anew.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def own_precision(std: Array, scale: Array) -> Array:
    """``1 / sigma_t^2`` of an image that has these errors.

    Parameters
    ----------
    std : (F, N) float32
        Size of the errors of each voxel.
    scale : (F,) float32
        Of the frame's images (`likelihood.signal_scale`), in whose unit precision is.

    Returns
    -------
    (F,) float32; zero for a frame of zeros, which has no errors.
    """
    square = np.square(std).mean(axis=1)
    return np.asarray(np.divide(np.square(scale), square, out=np.zeros_like(square), where=square > 0))
