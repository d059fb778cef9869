"""DEQ-MPI: the fixed point of a learned iteration (Güngör et al. 2024); see `training.deq_network` for differences.

The iteration is an ONNX model, and `anderson` accelerates it. Its state consists of the image x, the multiplier d0 of
the prior and the multiplier d2 of the signals, side by side.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.likelihood import Likelihood
from mpi_fast.methods.anderson import fixed_point
from mpi_fast.methods.base import ReducedMethod, check_count, check_positive, parts
from mpi_fast.methods.learned_model import LearnedModel

Array = NDArray[np.float32]
PADDING = 3
"""Components without signal (S, y and V zero) behind the scanner's own, as in training, where all are padded to one
rank. The consistency network convolves along the components, in three layers of width three: so its last ones see the
ln(S / sigma) of padding, as they have learned to, and not the zeros that a convolution takes beyond its end."""


class DeqMpi(ReducedMethod):
    """Anderson iterations of the network to their fixed point.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    noise : float
        Noise level passed to the network, relative to the estimate; it scales epsilon of the paper.
    iterations : int
        Largest number of network evaluations; 25 in the paper. The bundled network uses all of them only from 30 dB on.
    tolerance : float
        Relative residual at which a frame has converged, as in the paper.
    model : str or Path
        File written by ``python -m mpi_fast.export.learned``, or ``default``.
    threads : int, optional
        Threads of the network; by default all.

    Attributes
    ----------
    residual : (F,) float64
        Relative residual of the last call's frames.

    Raises
    ------
    InputError
        For parameters that are not positive, or iterations that are not a whole number.
    ModelError, MismatchError
        As `LearnedModel`.
    """

    def __init__(
        self,
        calibration: Calibration,
        noise: float = 1.0,
        iterations: int = 10,
        tolerance: float = 1e-4,
        model: str | Path = "default",
        threads: int | None = None,
    ) -> None:
        super().__init__(calibration)
        check_positive(noise=noise, tolerance=tolerance)
        check_count(iterations=iterations)
        self.noise, self.iterations, self.tolerance = noise, iterations, tolerance
        self.residual: NDArray[np.float64] = np.empty(0)
        self._model = LearnedModel("deq", model, calibration, threads)

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        found = [self._iterate(part) for part in parts(likelihood)]
        images, residuals = zip(*found, strict=True)
        self.residual = np.concatenate(residuals)
        return np.asarray(np.maximum(np.concatenate(images), 0))

    def _iterate(self, likelihood: Likelihood) -> tuple[Array, NDArray[np.float64]]:
        scaled = padded(replace(likelihood, noise=np.float32(self.noise) * likelihood.noise))
        given = {"y": scaled.y, "noise": scaled.noise, "singular_values": scaled.singular_values, "basis": scaled.basis}
        frames, voxels = len(scaled.y), scaled.basis.shape[0]

        def step(state: NDArray[np.floating]) -> NDArray[np.floating]:
            image, prior, signal = np.split(state, [voxels, 2 * voxels], axis=1)
            return self._model(image=image, prior=prior, signal=signal, **given)

        image = scaled.combine(np.zeros((frames, voxels), dtype=np.float32), 1.0)
        multipliers = np.zeros((frames, voxels + scaled.y.shape[1]), dtype=np.float32)
        start = np.concatenate([image, multipliers], axis=1)
        state, residual, _ = fixed_point(step, start, self.iterations, self.tolerance)
        return np.asarray(state[:, :voxels], dtype=np.float32), residual


def padded(likelihood: Likelihood) -> Likelihood:
    """The likelihood with `PADDING` additional components of zero."""
    columns = (0, 0), (0, PADDING)
    return replace(
        likelihood,
        y=np.pad(likelihood.y, columns),
        singular_values=np.pad(likelihood.singular_values, columns[1]),
        basis=np.pad(likelihood.basis, columns),
    )
