"""The mean of posterior samples, by every solver and every noising process: what score-based reconstruction returns.

Wang et al. ("A score-based model guided by signals for MPI reconstruction", 2025) draw one sample by a thousand steps
of predictor and corrector (Song et al., "Score-based generative modeling through stochastic differential equations",
ICLR 2021). Here the score is that of the network which makes our image, ``(D - x_t) / sigma_t^2``, so
that what differs from it is the sampling alone; the mean of many samples is that image again, but for the samples'
number and the solver's error.
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
    """The mean of samples of the image given its signals, and their deviation.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner, of any grid.
    samples : int
        Samples of each frame; of a single one nothing is known about its deviation.
    sampler, sde, steps, seed
        See `Reconstructor.samples`.
    model : str or Path
        Bundle; see `Reconstructor`.
    threads : int, optional
        Threads that the network may use; default all.

    Raises
    ------
    InputError, MismatchError, ModelError
        As `Reconstructor`; for options of the sampler when called.
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
