"""Figures of merit: how close images are to the truth.

These conventions apply to all figures of this project. Images are clipped at zero, because no concentration is
negative, and not changed otherwise; in particular they are not rescaled. The peak and the data range are the maximum of
each true image. Every function takes images and truths of planes (F, ny, nx) or volumes (F, nz, ny, nx), and returns
one number per frame, float64 (F,). If the truth is empty, a number relative to it is NaN.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d, gaussian_filter1d

from mpi_fast.errors import InputError

Array = NDArray[np.float64]
SIGMA, RADIUS = 1.5, 5  # Gaussian window of the SSIM, cut at 3.5 sigma: 11 voxels along every axis
WINDOW = 2 * RADIUS + 1
K1, K2 = 0.01, 0.03
GMS_C = 170 / 255**2  # constant of Xue et al., for images with peak one
EDGE = 0.3  # threshold relative to the truth's steepest gradient
LEVELS = 0.5, 0.8, 0.95  # levels of the intervals


def _pair(image: NDArray[Any], truth: NDArray[Any]) -> tuple[Array, Array]:
    """Check the shapes, and clip the image."""
    if image.shape != truth.shape or image.ndim not in (3, 4):
        raise InputError(
            f"image {image.shape}, truth {truth.shape}: expected the same shape of planes or volumes, (frames, ..., nx)"
        )
    return np.maximum(np.asarray(image, np.float64), 0.0), np.asarray(truth, np.float64)


def _flat(images: NDArray[Any]) -> NDArray[Any]:
    """The voxels of each frame in one axis."""
    return images.reshape(len(images), -1)


def _peak(truth: Array) -> Array:
    """Maximum of each image, NaN if it is empty, (F, 1, ...), as a divisor of images."""
    return _or_nan(truth.max(axis=tuple(range(1, truth.ndim)), keepdims=True))


def _or_nan(values: Array) -> Array:
    """Replace zeros, which cannot be divisors, by NaN."""
    return np.where(values > 0, values, np.nan)


def psnr(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Peak signal-to-noise ratio ``10 log10(max(truth)^2 / mean((image - truth)^2))`` in dB; infinite if equal."""
    image, truth = _pair(image, truth)
    with np.errstate(divide="ignore"):
        peak, error = _or_nan(_flat(truth).max(axis=1)), _flat((image - truth) ** 2).mean(axis=1)
        return np.asarray(20 * np.log10(peak) - 10 * np.log10(error))


def nrmse(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Error relative to the truth, ``||image - truth|| / ||truth||`` (2-norms)."""
    image, truth = _pair(image, truth)
    return np.asarray(np.linalg.norm(_flat(image - truth), axis=1) / _or_nan(np.linalg.norm(_flat(truth), axis=1)))


def concentration_error(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Relative error of the total concentration, ``sum(image) / sum(truth) - 1``; negative if some is missing."""
    image, truth = _pair(image, truth)
    return np.asarray(_flat(image).sum(axis=1) / _or_nan(_flat(truth).sum(axis=1)) - 1)


def ssim(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Structural similarity (Wang et al., "Image quality assessment", IEEE Trans. Image Process. 2004), at most 1.

    Gaussian window of sigma 1.5 cut to 11 voxels along every axis, K1 = 0.01, K2 = 0.03, population covariances, mean
    over the windows that lie inside the image: scikit-image's ``structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=truth.max())``, for all frames at once.

    Raises
    ------
    InputError
        For images smaller than the window.
    """
    image, truth = _pair(image, truth)
    if min(image.shape[1:]) < WINDOW:
        raise InputError(f"ssim: images of {image.shape[1:]} voxels, expected at least {WINDOW} each way")
    data_range = _peak(truth)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_i, mean_t = _windowed(image), _windowed(truth)
    variances = _windowed(image**2) - mean_i**2 + _windowed(truth**2) - mean_t**2
    covariance = _windowed(image * truth) - mean_i * mean_t
    similarity = (2 * mean_i * mean_t + c1) * (2 * covariance + c2)
    similarity /= (mean_i**2 + mean_t**2 + c1) * (variances + c2)
    return np.asarray(_flat(similarity).mean(axis=1))


def _windowed(values: Array) -> Array:
    """Gaussian average around every voxel whose window lies inside the image, each axis of the grid 10 shorter."""
    for axis in range(1, values.ndim):
        values = gaussian_filter1d(values, SIGMA, axis=axis, radius=RADIUS)
    inside = slice(RADIUS, -RADIUS)
    return values[(slice(None), *[inside] * (values.ndim - 1))]


# -- edges ----------------------------------------------------------------------------------------------------------


def edge_similarity(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Mean similarity of the gradient magnitudes, ``(2 m t + c) / (m^2 + t^2 + c)``, at most 1.

    Xue et al., "Gradient magnitude similarity deviation", IEEE Trans. Image Process. 2014, there called GMSM: Prewitt
    gradients, images divided by the true maximum, c = 0.0026; without their down-sampling, because voxels are large
    here.
    """
    image, truth = _pair(image, truth)
    peak = _peak(truth)
    m, t = prewitt(image / peak), prewitt(truth / peak)
    return np.asarray(_flat((2 * m * t + GMS_C) / (m**2 + t**2 + GMS_C)).mean(axis=1))


def edge_f1(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """F1 score of the edges found, from 0 to 1: harmonic mean of precision and recall.

    An edge is a voxel whose Prewitt gradient is over 0.3 of the truth's steepest, in either image.
    """
    image, truth = _pair(image, truth)
    found, true = prewitt(image), prewitt(truth)
    threshold = EDGE * _peak(true)
    edges, true_edges = _flat(found > threshold), _flat(true > threshold)
    right, both = (edges & true_edges).sum(axis=1), edges.sum(axis=1) + true_edges.sum(axis=1)
    return np.asarray(2 * right / _or_nan(np.asarray(both, np.float64)))


def sharpness(image: NDArray[Any], truth: NDArray[Any]) -> Array:
    """Sum of the gradient magnitudes over that of the truth: below 1 for a blurred image, above 1 for a noisy one."""
    image, truth = _pair(image, truth)
    return np.asarray(_flat(prewitt(image)).sum(axis=1) / _or_nan(_flat(prewitt(truth)).sum(axis=1)))


def prewitt(images: NDArray[Any]) -> Array:
    """Gradient magnitude per voxel by Prewitt's operator, the image's edges replicated, (F, *grid).

    Along each axis the difference of the two neighbours, averaged over three voxels along each of the other axes.
    """
    axes = range(1, images.ndim)
    square = np.zeros(images.shape)
    for along in axes:
        slope = np.asarray(images, np.float64)
        for axis in axes:
            weights = (-1, 0, 1) if axis == along else (1 / 3, 1 / 3, 1 / 3)
            slope = correlate1d(slope, weights, axis=axis, mode="nearest")
        square += slope**2
    return np.asarray(np.sqrt(square))


# -- uncertainty ----------------------------------------------------------------------------------------------------


def coverage(
    image: NDArray[Any], half_width: NDArray[Any], truth: NDArray[Any], inside: NDArray[np.bool_] | None = None
) -> Array:
    """Share of the voxels whose true value lies within ``image +- half_width``; for correct intervals, their level.

    half_width has the shape and unit of the images; ``inside`` (*grid) selects voxels, such as those within the
    trajectory.

    Raises
    ------
    InputError
        For a half_width of another shape.
    """
    image, truth = _pair(image, truth)
    if half_width.shape != image.shape:
        raise InputError(f"half_width {half_width.shape}: expected the shape of the images, {image.shape}")
    covered = np.abs(image - truth) <= half_width
    return np.asarray(covered[:, np.ones(image.shape[1:], bool) if inside is None else inside].mean(axis=1))
