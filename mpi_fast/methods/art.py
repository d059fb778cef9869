"""ART: the regularised Kaczmarz iteration with real, non-negative images, the standard of the field.

One row at a time, the image is moved onto the row's equation (Knopp et al., "Weighted iterative reconstruction for
magnetic particle imaging", Phys. Med. Biol. 2010; as in MPIReco.jl):

    alpha = (b_m - <a_m, x> - sqrt(lambda) v_m) / (||a_m||^2 + lambda)
    x += alpha a_m;   v_m += sqrt(lambda) alpha

A real x sees a complex row as two real ones, and after each sweep negative voxels are set to zero.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError


class Kaczmarz:
    """Regularised Kaczmarz for all frames at once.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner; its selected rows are used, not the reduction.
    strength : float
        lambda relative to ``||A||_F^2 / N``.
    iterations : int
        Sweeps over all rows.
    whiten : bool
        Divide each row by its noise standard deviation first.
    """

    def __init__(
        self, calibration: Calibration, strength: float = 1e-2, iterations: int = 10, *, whiten: bool = False
    ) -> None:
        if not strength > 0 or iterations < 1:
            raise InputError(f"strength {strength}, iterations {iterations}: expected positive numbers")
        self.calibration, self.iterations = calibration, iterations
        self.strength, self.whiten = strength, whiten
        self._weights = calibration.weights if whiten else np.ones(calibration.num_rows)
        matrix = calibration.matrix * self._weights[:, None]
        self._rows = _interleaved(matrix)
        self._lambda = strength * float((self._rows**2).sum()) / calibration.num_voxels

    def __call__(self, signals: NDArray[Any]) -> NDArray[np.float32]:
        """Reconstruct signals, as `Calibration.rows` takes them, to images (F, ny, nx) float32."""
        rows = self.calibration.rows(signals) * self._weights
        image = kaczmarz(self._rows, _interleaved(rows.T).T, self._lambda, self.iterations)
        return image.reshape(-1, *self.calibration.grid).astype(np.float32)


def _interleaved(rows: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """(M, N) complex -> (2M, N) real: the real part of each row, then its imaginary part."""
    return np.stack([rows.real, rows.imag], axis=1).reshape(-1, rows.shape[1]).astype(np.float64)


def kaczmarz(
    rows: NDArray[np.float64], signals: NDArray[np.float64], regularisation: float, iterations: int
) -> NDArray[np.float64]:
    """Iterate over rows (2M, N) for signals (F, 2M); see the module's head. Returns (F, N), non-negative.

    The rows take their turns; the frames of a batch are independent and advance together, as columns of a product.
    """
    image = np.zeros((len(signals), rows.shape[1]))
    dual = np.zeros_like(signals)
    root = np.sqrt(regularisation)
    energy = (rows**2).sum(axis=1) + regularisation
    for _ in range(iterations):
        for m, row in enumerate(rows):
            step = (signals[:, m] - image @ row - root * dual[:, m]) / energy[m]
            image += step[:, None] * row
            dual[:, m] += root * step
        np.maximum(image, 0.0, out=image)
    return image
