"""The mean of posterior samples, as score-based reconstruction gives it, by every solver and noising process.

Wang et al. ("A score-based model guided by signals for MPI reconstruction", 2025) draw one sample by a thousand steps
of predictor and corrector (Song et al., "Score-based generative modeling through stochastic differential equations",
ICLR 2021). Here the score is that of our network, ``(D - x_t) / sigma_t^2``, so that only the sampling differs from our
method. The mean of many samples equals our image, except for their finite number and the solver's error.
"""

from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.methods.base import Estimate
from mpi_fast.pipelines import Sampling
from mpi_fast.reconstructor import Reconstructor


class SampleMean:
    """Mean and standard deviation of posterior samples.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner, on any grid.
    samples : int
        Number of samples of each frame; a single sample gives no standard deviation.
    sampler, sde, steps, seed
        See `Reconstructor.samples`.
    model : str or Path
        Bundle; see `Reconstructor`.
    threads : int, optional
        Threads of the network; by default all.

    Raises
    ------
    InputError, MismatchError, ModelError
        As `Reconstructor`; for options of the sampler only when called.
    """

    def __init__(
        self,
        calibration: Calibration,
        samples: int = Sampling.samples,
        sampler: str = "dpm",
        sde: str = "ve",
        steps: int = Sampling.steps,
        seed: int = 0,
        *,
        model: str | Path = "default",
        threads: int | None = None,
    ) -> None:
        reconstructor = Reconstructor(calibration, model, device="cpu", threads=threads, inspect=False)
        self._draw = partial(reconstructor.samples, count=samples, sampler=sampler, steps=steps, sde=sde, seed=seed)

    def __call__(self, signals: NDArray[Any]) -> Estimate:
        """Sample images of frames; see `base.Method`."""
        drawn = self._draw(signals)
        std = drawn.std(axis=1, ddof=1) if drawn.shape[1] > 1 else None
        return Estimate(drawn.mean(axis=1), std)
