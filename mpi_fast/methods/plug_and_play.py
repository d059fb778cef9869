"""Plug and play: a learned denoiser replaces the proximal map of a penalty.

PP-MPI (Askin et al., "PP-MPI: a deep plug-and-play prior for magnetic particle imaging reconstruction", MLMIR 2022)
alternates, by ADMM, between the signals and a denoiser that knows images but no scanner. Here the denoiser is the
bundled network without signals (`pipelines.graph.Prior`; an eighth of its training scanners measured nothing). The only
difference from our own method is therefore the way in which signals and denoiser are combined:

    x = argmin ||S V^T x - y||^2 / sigma^2 + ||x - (z - u)||^2 / r^2,    z = D(x + u; level),    u = u + x - z

* ``admm``: as above, with r = strength * level and a constant level;
* ``hqs``: half-quadratic splitting, with u = 0 and a level that falls geometrically from 1 to its last value (Zhang et
al.,
  "Plug-and-play image restoration with deep denoiser prior", IEEE Trans. Pattern Anal. Mach. Intell. 2021).
"""

from functools import lru_cache
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.likelihood import Likelihood
from mpi_fast.methods.base import ReducedMethod, check_count, check_positive, parts
from mpi_fast.pipelines.graph import VOXELS, Prior

Array = NDArray[np.float32]
Scheme = Literal["admm", "hqs"]
SCHEMES: tuple[str, ...] = get_args(Scheme)


@lru_cache(maxsize=1)  # tuning builds the method many times, and loading a network takes longer than using it
def _prior(path: Path, seal: str | None, grid: tuple[int, ...], threads: int | None) -> Prior:
    """The network of a bundle as a denoiser; the seal identifies the version of the bundle."""
    return Prior(Bundle.open(path), grid, threads)


class PlugAndPlay(ReducedMethod):
    """ADMM or half-quadratic splitting with the bundled network as an ordinary denoiser.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    scheme : str
        ``admm`` or ``hqs``.
    level : float
        Noise level of the denoiser, for images of root-mean-square one; with ``hqs`` the last level.
    strength : float
        r, relative to the level.
    iterations : int
        Number of network evaluations.
    model : str or Path
        Bundle; see `Reconstructor`.
    threads : int, optional
        Threads of the network; by default all.

    Raises
    ------
    InputError, ModelError
        For options out of range, and for a broken bundle.
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
        self._admm = scheme == "admm"
        self._levels = np.geomspace(level if self._admm else max(level, 1.0), level, iterations).tolist()
        self._strength = strength
        self._prior = _prior(bundle.path, bundle.manifest.get("seal"), calibration.grid, threads)

    def solve(self, likelihood: Likelihood) -> Array:
        """Images (F, N)."""
        size = max(1, VOXELS // self.calibration.num_voxels)
        return np.concatenate([self._iterate(part) for part in parts(likelihood, size)])

    def _iterate(self, likelihood: Likelihood) -> Array:
        frames, voxels = len(likelihood.y), self.calibration.num_voxels
        denoise = self._prior.of_frames(frames)
        dual = np.zeros((frames, voxels), dtype=np.float32)
        image = likelihood.combine(dual, 1.0)
        for level in self._levels:
            denoised = denoise(image + dual, level)
            if self._admm:
                dual += image - denoised
            image = likelihood.combine(denoised - dual, self._strength * level)
        return np.asarray(np.maximum(image, 0))
