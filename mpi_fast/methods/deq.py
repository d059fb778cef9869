"""DEQ-MPI: the fixed point of a learned iteration (Güngör et al. 2024); see `training.deq` for what is theirs.

The iteration is an ONNX model, what accelerates it is `anderson`. Its state is the image x, the multiplier d0 of its
prior and d2 of its signals, side by side.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.guidance import Likelihood
from mpi_fast.methods.anderson import MEMORY, fixed_point
from mpi_fast.methods.base import ReducedMethod, check_positive
from mpi_fast.methods.learned import LearnedModel, parts

Array = NDArray[np.float32]


class DeqMpi(ReducedMethod):
    """Anderson iterations of the network to their fixed point.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    noise : float
        The noise level that the network is told, relative to the one found: it scales the paper's epsilon.
    iterations : int
        Evaluations of the network at most, as in the paper.
    tolerance : float
        Relative residual at which a frame has converged, as in the paper.
    memory : int
        Iterates that Anderson acceleration combines; 1 is the plain iteration.
    model : str or Path
        A file written by ``python -m mpi_fast.export.learned``, or ``default``.
    threads : int, optional
        Threads that the network may use; default all.

    Attributes
    ----------
    residual : (F,) float64
        Relative residual of the last call's frames.

    Raises
    ------
    InputError
        For parameters that are not positive.
    ModelError, MismatchError
        As `LearnedModel`.
    """

    def __init__(
        self,
        calibration: Calibration,
        noise: float = 1.0,
        iterations: int = 25,
        tolerance: float = 1e-4,
        memory: int = MEMORY,
        model: str | Path = "default",
        threads: int | None = None,
    ) -> None:
        super().__init__(calibration)
        check_positive(noise=noise, iterations=iterations, tolerance=tolerance, memory=memory)
        self.noise, self.iterations, self.tolerance, self.memory = noise, iterations, tolerance, memory
        self.residual: NDArray[np.float64] = np.empty(0)
        self._model = LearnedModel("deq", model, calibration, threads)

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        images = np.empty((len(likelihood.y), likelihood.basis.shape[0]), dtype=np.float32)
        self.residual = np.empty(len(images))
        for part in parts(len(images)):
            images[part], self.residual[part] = self._iterate(likelihood, part)
        return np.maximum(images, 0, out=images)

    def _iterate(self, likelihood: Likelihood, part: slice) -> tuple[Array, NDArray[np.float64]]:
        y, noise = likelihood.y[part], np.float32(self.noise) * likelihood.noise[part]
        given = {"y": y, "noise": noise, "singular_values": likelihood.singular_values, "basis": likelihood.basis}
        frames, voxels = len(y), likelihood.basis.shape[0]

        def step(state: NDArray[np.floating]) -> NDArray[np.floating]:
            image, prior, signal = np.split(state, [voxels, 2 * voxels], axis=1)
            return self._model(image=image, prior=prior, signal=signal, **given)

        start = Likelihood(y, likelihood.singular_values, likelihood.basis, noise)
        multipliers = np.zeros((frames, voxels + y.shape[1]), dtype=np.float32)
        image = start.combine(np.zeros((frames, 1, voxels), dtype=np.float32), 1.0)[:, 0]
        state, residual, _ = fixed_point(
            step,
            np.concatenate([image, multipliers], axis=1),
            self.iterations,
            self.tolerance,
            self.memory,
        )
        return np.asarray(state[:, :voxels], dtype=np.float32), residual
