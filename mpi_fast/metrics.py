"""How close images are to the truth.

Conventions, the same wherever this project states a figure: images are clipped at zero, since no concentration is
negative, and nothing else is done to them; no image is rescaled; the peak and the data range are the maximum of each
true image. Every function takes images and truths (F, ny, nx) and returns one number per frame, float64 (F,); where
the truth is empty a number relative to it does not exist and is NaN.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from mpi_fast.errors import InputError

Array = NDArray[np.float64]
SIGMA, RADIUS = 1.5, 5  # of the SSIM's Gaussian window: cut at 3.5 sigma, 11 x 11 voxels
K1, K2 = 0.01, 0.03


def _pair(image: NDArray[Any], truth: NDArray[Any]) -> tuple[Array, Array]:
    """Check the shapes, and clip the image."""
    if image.shape != truth.shape or image.ndim != 3:
        raise InputError(f"image {image.shape}, truth {truth.shape}: expected the same shape (frames, ny, nx)")
    return np.maximum(np.asarray(image, np.float64), 0.0), np.asarray(truth, np.float64)


def _or_nan(values: Array) -> Array:
    """Replace zeros, by which nothing can be divided, by NaN."""
    return np.where(values > 0, values, np.nan)


def psnr(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Peak signal-to-noise ratio ``10 log10(max(truth)^2 / mean((image - truth)^2))`` in dB, infinite for the truth."""
    image, truth = _pair(image, truth)
    with np.errstate(divide="ignore"):
        peak, error = _or_nan(truth.max(axis=(1, 2))), ((image - truth) ** 2).mean(axis=(1, 2))
        return np.asarray(20 * np.log10(peak) - 10 * np.log10(error))


def nrmse(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Error relative to the truth, ``||image - truth|| / ||truth||`` (2-norms)."""
    image, truth = _pair(image, truth)
    return np.asarray(np.linalg.norm(image - truth, axis=(1, 2)) / _or_nan(np.linalg.norm(truth, axis=(1, 2))))


def concentration_error(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Relative error of the total concentration, ``sum(image) / sum(truth) - 1``: negative where some is missing."""
    image, truth = _pair(image, truth)
    return np.asarray(image.sum(axis=(1, 2)) / _or_nan(truth.sum(axis=(1, 2))) - 1)


def ssim(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Structural similarity (Wang et al., "Image quality assessment", IEEE Trans. Image Process. 2004), at most 1.

    Gaussian window of sigma 1.5 cut to 11 x 11 voxels, K1 = 0.01, K2 = 0.03, population covariances, mean over the
    windows that lie inside the image: scikit-image's ``structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=truth.max())``, in NumPy alone.

    Raises
    ------
    InputError
        For images smaller than the window.
    """
    image, truth = _pair(image, truth)
    if min(image.shape[1:]) < 2 * RADIUS + 1:
        raise InputError(f"ssim: images of {image.shape[1:]} voxels, expected at least {2 * RADIUS + 1} each way")
    data_range = _or_nan(truth.max(axis=(1, 2)))[:, None, None]
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_i, mean_t = _windowed(image), _windowed(truth)
    variances = _windowed(image**2) - mean_i**2 + _windowed(truth**2) - mean_t**2
    covariance = _windowed(image * truth) - mean_i * mean_t
    similarity = (2 * mean_i * mean_t + c1) * (2 * covariance + c2)
    similarity /= (mean_i**2 + mean_t**2 + c1) * (variances + c2)
    return np.asarray(similarity.mean(axis=(1, 2)))


def _windowed(values: Array) -> Array:
    """Gaussian average around every voxel whose window lies inside the image, (F, ny - 10, nx - 10)."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    for axis in (1, 2):
        values = sliding_window_view(values, len(weights), axis=axis) @ weights
    return values
