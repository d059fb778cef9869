"""Expected quality of images with a calibration, before any frame is measured: frames simulated through its matrix.

The phantoms are of families that are not used in training. Their signals ``S V^T x`` are computed with this
calibration, with white noise in the whitened rows, reconstructed like any frame, and compared with the truth. The
forecast assumes that the matrix is right: errors of the calibration itself, and changes of the scanner since, come in
addition.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast import heldout
from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.grids import shown
from mpi_fast.limits import decibels
from mpi_fast.metrics import coverage, psnr
from mpi_fast.noise import add_noise
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.reduction import rows_of
from mpi_fast.resolution import SNRS_DB
from mpi_fast.uncertainty import LEVELS

VOXELS = 60_000  # of all phantoms of an SNR together; takes seconds
FEWEST, TURNS = 3, 3  # least number of phantoms, and most rounds over the families
INTERVAL = LEVELS[1]


@dataclass(frozen=True)
class Forecast:
    """Expected quality of images at one SNR, over some phantoms.

    Attributes
    ----------
    snr_db : float
        ``20 log10(||signal|| / ||noise||)`` over the whitened rows of each frame, as `reconstruct` reports it.
    phantoms : int
    psnr_db, worst_db, best_db : float
        Mean, smallest and largest PSNR over the phantoms; the peak is the true maximum.
    held : float
        Share of the voxels whose true value is within the 95 % interval.
    """

    snr_db: float
    phantoms: int
    psnr_db: float
    worst_db: float
    best_db: float
    held: float


def forecast(
    calibration: Calibration,
    snrs_db: Sequence[float] = SNRS_DB,
    *,
    model: str | Path = "default",
    phantoms: int | None = None,
    seed: int = 0,
) -> Iterator[Forecast]:
    """Simulate frames of a calibration, reconstruct them, and compare the images with the truth, for each SNR.

    Parameters
    ----------
    calibration : Calibration
    snrs_db : sequence of float
        SNRs to simulate, all with the same phantoms.
    model : str or Path
        Bundle; see `Reconstructor`.
    phantoms : int, optional
        By default as many as have about 60 000 voxels together: 21 for most planes, 3 for large volumes.
    seed : int
        Seed of phantoms and noise.

    Yields
    ------
    Forecast

    Raises
    ------
    InputError
        For an SNR as `limits.decibels`, for zero phantoms, and for a grid on which phantoms are invisible.
    MPIFastError
        For the model, as `Reconstructor`.
    """
    families = len(heldout.families(len(calibration.grid)))
    count = int(np.clip(VOXELS // calibration.num_voxels, FEWEST, TURNS * families)) if phantoms is None else phantoms
    if count < 1:
        raise InputError(f"{count} phantoms: expected at least one")
    for snr in snrs_db:
        decibels(snr)
    sizes = [abs(length) / n for length, n in zip(calibration.field_of_view, calibration.grid, strict=True)]
    aspect = [size / sizes[-1] for size in sizes[:-1]]
    truth = heldout.phantoms(count, [seed, 0], calibration.grid, aspect)
    truth = truth[truth.reshape(count, -1).any(axis=1)]  # on a line of voxels some phantoms are empty
    if not len(truth):
        raise InputError(f"{shown(calibration.grid)} voxels: no phantom has anything to show on so few")
    reconstructor = Reconstructor(calibration, model, inspect=False)
    for snr in snrs_db:
        result = reconstructor(simulated(calibration, truth, snr, np.random.default_rng([seed, 1])))
        quality = psnr(result.image, truth)
        held = float(coverage(result.image, result.half_width(INTERVAL), truth).mean())
        yield Forecast(snr, len(truth), float(quality.mean()), float(quality.min()), float(quality.max()), held)


def simulated(
    calibration: Calibration, images: NDArray[np.float32], snr_db: float, rng: np.random.Generator
) -> NDArray[np.complex64]:
    """Selected rows (F, M) of images (F, *grid), with noise at exactly this SNR over the whitened rows."""
    y = (images.reshape(len(images), -1) @ calibration.basis) * calibration.singular_values
    whitened = rows_of(y, calibration.projection, calibration.weights)
    return np.asarray(add_noise(whitened, snr_db, rng) / calibration.weights, dtype=np.complex64)
