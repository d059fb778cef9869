"""Replace images that do not explain their signals by the nearest images that do.

With a scanner or a phantom unlike all of the training, the network may give an image whose signals differ from the
measured ones by more than noise. The ratio ``||y - S V^T x||^2 / (R s^2)``, usually about one, is then large. Such an
image is replaced. With d, the standard deviation that the network gives for each voxel, the new image is

    min ||y - S V^T x||^2 / s^2 + ||(x - image) / d||^2    subject to x >= 0

where s^2 is the noise variance of the frame plus, if the noise of the calibration is known (one in each whitened
entry), that of the calibration, ``||image||^2``. Images that explain their signals are not changed, because the network
combines signals and prior knowledge better than this formula.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.nonnegative import nnls

Array = NDArray[np.float32]
UNEXPLAINED = 4.0  # times the energy of noise: two standard deviations in every measured value
LARGEST = 1 << 22  # entries of V up to which this is done: all planes and small volumes; larger ones take seconds
SMALLEST_STD = 1e-3  # relative to the image's largest deviation, so that no voxel counts as certain


def consistent(calibration: Calibration, rows: NDArray[np.complex64], image: Array, std: Array) -> Array:
    """Replace images that do not explain their signals.

    Parameters
    ----------
    calibration : Calibration
    rows : (F, M) complex64
    image, std : (F, N) float32
        Images and standard deviations that the network gave for these rows.

    Returns
    -------
    (F, N) float32
        The same array if no image is replaced.
    """
    if calibration.basis.size > LARGEST:
        return image
    reduced = calibration.reduce(rows)
    left = reduced.y - (image @ calibration.basis) * calibration.singular_values
    # Squares in float64, because those of signals below 1e-20 vanish in float32, and noise is divided by.
    own = np.square(image, dtype=np.float64).sum(axis=1) if calibration.noise_known else 0.0
    variance = np.square(reduced.noise, dtype=np.float64) + own
    unexplained = np.square(left, dtype=np.float64).mean(axis=1) > UNEXPLAINED * variance
    noise = np.sqrt(variance)
    # Images of frames that noise alone explains stay empty.
    wrong = np.flatnonzero(unexplained & image.any(axis=1) & (std > 0).any(axis=1))
    if not wrong.size:
        return image
    image = image.copy()
    forward = (calibration.singular_values[:, None] * calibration.basis.T).astype(np.float64)
    for frame in wrong:
        deviation = np.maximum(std[frame], SMALLEST_STD * std[frame].max()).astype(np.float64)
        whitened = forward * (deviation / noise[frame])
        image[frame] = deviation * nnls(whitened, reduced.y[frame] / noise[frame], 1.0, image[frame] / deviation)
    return image
