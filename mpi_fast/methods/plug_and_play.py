"""Plug and play: a learned denoiser in the place of a penalty's proximal map.

PP-MPI (Askin et al., "PP-MPI: a deep plug-and-play prior for magnetic particle imaging reconstruction", MLMIR 2022)
alternates, by ADMM, between the signals and a denoiser that knows images but no scanner. Here the denoiser is the
bundled network without any signals, so that what differs from our own method is how the two are brought together:

    x = argmin ||S V^T x - y||^2 / sigma^2 + ||x - (z - u)||^2 / r^2,    z = D(x + u; level),    u = u + x - z

* ``admm``: as above, r = strength * level, at one level throughout;
* ``hqs``: half-quadratic splitting, u = 0, the level falling geometrically from 1 to its last value (Zhang et al.,
  "Plug-and-play image restoration with deep denoiser prior", IEEE Trans. Pattern Anal. Mach. Intell. 2021).
"""

from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.denoiser import ConditionedDenoiser
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.guidance import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_count, check_positive, parts

Array = NDArray[np.float32]
Scheme = Literal["admm", "hqs"]
SCHEMES: tuple[str, ...] = get_args(Scheme)


class PlugAndPlay(ReducedMethod):
    """ADMM or half-quadratic splitting with the bundled network as an ordinary denoiser.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    scheme : str
        ``admm`` or ``hqs``.
    level : float
        Noise level of the denoiser, for images of root-mean-square one; the last one of ``hqs``.
    strength : float
        r relative to the level.
    iterations : int
        Evaluations of the network.
    model : str or Path
        A bundle, or ``default``.
    threads : int, optional
        Threads that the network may use; default all.

    Raises
    ------
    InputError, MismatchError, ModelError
        For options out of range, and as `Reconstructor`.
    """

    def __init__(
        self,
        calibration: Calibration,
        scheme: Scheme = "hqs",
        level: float = 0.1,
        strength: float = 1.0,
        iterations: int = 20,
        *,
        model: str | Path = "default",
        threads: int | None = None,
    ) -> None:
        super().__init__(calibration)
        if scheme not in SCHEMES:
            raise InputError(f"scheme '{scheme}': expected one of {', '.join(SCHEMES)}")
        check_positive(level=level, strength=strength)
        check_count(iterations=iterations)
        bundle = Bundle.open(model)
        if bundle.method != "score":
            raise MismatchError(f"{bundle.path}: a {bundle.method} network; plug and play needs a score network")
        if bundle.grid != calibration.grid:
            raise MismatchError(f"{bundle.path}: a model for {bundle.grid}, but the calibration has {calibration.grid}")
        self._admm = scheme == "admm"
        self._levels = np.geomspace(level if self._admm else max(level, 1.0), level, iterations).tolist()
        self._strength, self._engine = strength, OnnxEngine(bundle, threads)

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        return np.concatenate([self._iterate(part) for part in parts(likelihood)])

    def _iterate(self, likelihood: Likelihood) -> Array:
        frames, voxels = len(likelihood.y), self.calibration.num_voxels
        denoise = ConditionedDenoiser(Likelihood.of_nothing(frames, voxels), self._engine.bind(frames, 1), "none")
        dual = np.zeros((frames, voxels), dtype=np.float32)
        image = likelihood.combine(dual[:, None], 1.0)[:, 0]
        for level in self._levels:
            denoised = denoise(image + dual, level)
            if self._admm:
                dual += image - denoised
            image = likelihood.combine((denoised - dual)[:, None], self._strength * level)[:, 0]
        return np.asarray(np.maximum(image, 0))
