"""Images that leave more of their signals unexplained than noise can, and the nearest ones that do not.

A network that meets a scanner or a phantom unlike all of its training may give an image whose signals are not those
that were measured: by more than noise, which shows in ``||y - S V^T x||^2 / (R s^2)`` (about one where all is right).
Then the signals overrule it. As the network knows how uncertain each voxel is, its deviation d, the image becomes

    min ||y - S V^T x||^2 / s^2 + ||(x - image) / d||^2    subject to x >= 0

where s^2 is the noise of the frame and, with a calibration whose own noise is known (one in each whitened entry), that
of the calibration, ``||image||^2``. Images that explain their signals are left alone: the network has weighed these
already, and better, for it knows what images look like.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.nonnegative import nnls

Array = NDArray[np.float32]
UNEXPLAINED = 9.0  # over noise: three deviations too many in every number that was measured
LARGEST = 1 << 22  # entries of V that this is done for: all planes, and small volumes; of larger ones it takes seconds
SMALLEST_STD = 1e-3  # of the image's largest deviation, so that no voxel is taken for certain


def consistent(calibration: Calibration, rows: NDArray[np.complex64], image: Array, std: Array) -> Array:
    """Replace images that do not explain their signals.

    Parameters
    ----------
    calibration : Calibration
    rows : (F, M) complex64
    image, std : (F, N) float32
        As the network made them of these rows.

    Returns
    -------
    (F, N) float32
        The same array where there is nothing to do.
    """
    if calibration.basis.size > LARGEST:
        return image
    reduced = calibration.reduce(rows)
    left = reduced.y - (image @ calibration.basis) * calibration.singular_values
    own = np.square(image).sum(axis=1) if calibration.noise_known else np.zeros(len(image), np.float32)
    noise = np.sqrt(np.square(reduced.noise) + own)
    unexplained = np.square(left).mean(axis=1) > UNEXPLAINED * np.square(noise)
    # What noise alone explains stays empty, whatever its signals.
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
