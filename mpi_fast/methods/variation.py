"""Isotropic total variation of images in 2D: gradients, and the proximal map of TV for non-negative images.

``TV(x) = sum over voxels of sqrt((x[i+1, j] - x[i, j])^2 + (x[i, j+1] - x[i, j])^2)``, differences across the image's
edge being zero.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]
DUAL_STEP = 1 / 8  # one over the largest eigenvalue that divergence times gradient can have in 2D


def gradient(image: Array) -> Array:
    """Forward differences of images (F, ny, nx) along y and x, (2, F, ny, nx), zero at the last row and column."""
    out = np.zeros((2, *image.shape), dtype=image.dtype)
    np.subtract(image[:, 1:], image[:, :-1], out=out[0, :, :-1])
    np.subtract(image[:, :, 1:], image[:, :, :-1], out=out[1, :, :, :-1])
    return out


def gradient_transposed(field: Array) -> Array:
    """The adjoint of `gradient`, (2, F, ny, nx) -> (F, ny, nx): minus the divergence."""
    out = np.zeros(field.shape[1:], dtype=field.dtype)
    out[:, 1:] += field[0, :, :-1]
    out[:, :-1] -= field[0, :, :-1]
    out[:, :, 1:] += field[1, :, :, :-1]
    out[:, :, :-1] -= field[1, :, :, :-1]
    return out


def total_variation(image: Array) -> Array:
    """TV of each image (F, ny, nx), (F,)."""
    return np.asarray(np.sqrt((gradient(image) ** 2).sum(axis=0)).sum(axis=(1, 2)))


def denoise(image: Array, weight: Array | float, iterations: int, dual: Array | None = None) -> tuple[Array, Array]:
    """Minimise ``||x - image||^2 / 2 + weight TV(x)`` over x >= 0.

    Fast gradient projection on the dual (Beck and Teboulle, "Fast gradient-based algorithms for constrained total
    variation image denoising and deblurring problems", IEEE Trans. Image Process. 2009, algorithm FGP).

    Parameters
    ----------
    image : (F, ny, nx)
    weight : float or (F,)
        Positive.
    iterations : int
    dual : (2, F, ny, nx), optional
        To start from: that of a similar problem.

    Returns
    -------
    x : (F, ny, nx)
    dual : (2, F, ny, nx)
    """
    weight = np.broadcast_to(np.asarray(weight, image.dtype), len(image))[:, None, None]
    dual = np.zeros((2, *image.shape), dtype=image.dtype) if dual is None else dual
    ahead, t = dual, 1.0
    for _ in range(iterations):
        inside = np.maximum(image - weight * gradient_transposed(ahead), 0)
        following = ahead + (DUAL_STEP / weight) * gradient(inside)
        following /= np.maximum(1, np.sqrt((following**2).sum(axis=0)))
        t, previous = (1 + np.sqrt(1 + 4 * t**2)) / 2, t
        ahead = following + np.asarray((previous - 1) / t, image.dtype) * (following - dual)
        dual = following
    return np.maximum(image - weight * gradient_transposed(dual), 0), dual
