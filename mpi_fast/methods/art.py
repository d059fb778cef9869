"""ART: the regularised Kaczmarz iteration with real, non-negative images, the usual method in MPI.

One row at a time, the image is moved onto the row's equation (Knopp et al., "Weighted iterative reconstruction for
magnetic particle imaging", Phys. Med. Biol. 2010; as in MPIReco.jl):

    alpha = (b_m - <a_m, x> - sqrt(lambda) v_m) / (||a_m||^2 + lambda)
    x += alpha a_m;   v_m += sqrt(lambda) alpha

For a real x, a complex row is two real rows. After each sweep negative voxels are set to zero.

For speed, rows are processed in blocks instead of one by one; the result is the same except for rounding. Within a
block B the alphas depend on the image before it, x_0, and on each other through the products of the rows:

    alpha_m (||a_m||^2 + lambda) + sum_(j < m) <a_m, a_j> alpha_j = b_m - <a_m, x_0> - sqrt(lambda) v_m

This is a triangular system, tril(A_B A_B^T) + lambda I, which is inverted once for all sweeps and frames.
"""

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.methods.base import Estimate, check_count, check_positive, reduced_frames
from mpi_fast.reduction import ReducedFrames

BLOCK = 64  # rows
Rows = Literal["measured", "whitened", "reduced"]
ROWS: tuple[str, ...] = get_args(Rows)


class Kaczmarz:
    """Regularised Kaczmarz for all frames at once.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    strength : float
        lambda, relative to ``||A||_F^2 / N``.
    iterations : int
        Number of sweeps over all rows.
    rows : str
        Equations to use: ``measured``, the selected rows as they are; ``whitened``, each row divided by its noise
        standard deviation; or ``reduced``, the reduced problem ``y = S V^T x``.

    Raises
    ------
    InputError
        For options out of range, and for reduced frames unless ``rows`` is ``reduced``.
    """

    def __init__(
        self, calibration: Calibration, strength: float = 1e-2, iterations: int = 10, rows: Rows = "measured"
    ) -> None:
        check_positive(strength=strength)
        check_count(iterations=iterations)
        if rows not in ROWS:
            raise InputError(f"rows '{rows}': expected one of {', '.join(ROWS)}")
        self.calibration, self.iterations = calibration, iterations
        self.strength, self.rows = strength, rows
        self._weights = calibration.weights if rows == "whitened" else np.ones(calibration.num_rows)
        if rows == "reduced":
            self._matrix = (calibration.singular_values[:, None] * calibration.basis.T).astype(np.float64)
        else:
            self._matrix = _interleaved(calibration.matrix * self._weights[:, None])
        self._lambda = strength * float((self._matrix**2).sum()) / calibration.num_voxels

    def __call__(self, signals: NDArray[Any] | ReducedFrames) -> Estimate:
        """Reconstruct signals, as `Calibration.rows` takes them, or already reduced frames."""
        image = kaczmarz(self._matrix, self._right_hand_side(signals), self._lambda, self.iterations)
        return Estimate(image.reshape(-1, *self.calibration.grid).astype(np.float32))

    def _right_hand_side(self, signals: NDArray[Any] | ReducedFrames) -> NDArray[np.float64]:
        if self.rows == "reduced":
            return reduced_frames(self.calibration, signals).y.astype(np.float64)
        if isinstance(signals, ReducedFrames):
            raise InputError(f"ART over {self.rows} rows: got reduced frames, expected rows, or rows='reduced'")
        return _interleaved((self.calibration.rows(signals) * self._weights).T).T


def _interleaved(rows: NDArray[np.complexfloating]) -> NDArray[np.float64]:
    """(M, N) complex -> (2M, N) real: the real part of each row, then its imaginary part."""
    return np.stack([rows.real, rows.imag], axis=1).reshape(-1, rows.shape[1]).astype(np.float64)


def kaczmarz(
    rows: NDArray[np.float64], signals: NDArray[np.float64], regularisation: float, iterations: int
) -> NDArray[np.float64]:
    """Iterate over rows (2M, N) for signals (F, 2M); see the module's head. Returns (F, N), non-negative."""
    image = np.zeros((len(signals), rows.shape[1]))
    dual = np.zeros_like(signals)
    root = np.sqrt(regularisation)
    blocks = []
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        triangle = np.tril(block @ block.T) + regularisation * np.eye(len(block))
        blocks.append((slice(start, start + BLOCK), block, np.linalg.inv(triangle).T))
    for _ in range(iterations):
        for part, block, inverse in blocks:
            step = (signals[:, part] - image @ block.T - root * dual[:, part]) @ inverse
            image += step @ block
            dual[:, part] += root * step
        np.maximum(image, 0.0, out=image)
    return image
