"""How well images of a calibration are expected to be, before any frame was measured: frames simulated through it.

Phantoms of families that training never sees, signals ``S V^T x`` of this very calibration with white noise in the
whitened rows, reconstructed as any frame is, and compared with the truth. So it says what the network makes of what the
scanner measures, where the matrix is right: errors of the calibration itself, and whatever changed since it was
measured, come on top.
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
from mpi_fast.metrics import coverage, psnr
from mpi_fast.reconstructor import Reconstructor

SNRS_DB = 15.0, 25.0, 35.0
VOXELS = 60_000  # of all phantoms of an SNR: seconds
FEWEST, TURNS = 3, 3  # phantoms, and turns of the families at most
INTERVAL = 0.95


@dataclass(frozen=True)
class Forecast:
    """What to expect of images at one SNR, over so many phantoms.

    Attributes
    ----------
    snr_db : float
        ``20 log10(||signal|| / ||noise||)`` over the whitened rows of each frame; as `reconstruct` reports it.
    phantoms : int
    psnr_db, worst_db, best_db : float
        Mean, smallest and largest PSNR over them, the peak being the true maximum.
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
    """Simulate frames of a calibration, reconstruct them, and say how close the images are, SNR by SNR.

    Parameters
    ----------
    calibration : Calibration
    snrs_db : sequence of float
        Every SNR sees the same phantoms.
    model : str or Path
        Bundle; see `Reconstructor`.
    phantoms : int, optional
        By default as many as have some 60 000 voxels: 21 of most planes, 3 of large volumes.
    seed : int
        Of phantoms and noise.

    Yields
    ------
    Forecast

    Raises
    ------
    InputError
        For an SNR that is no number, no phantoms, and a grid on which these show nothing.
    MPIFastError
        As `Reconstructor` for the model.
    """
    families = len(heldout.families(len(calibration.grid)))
    count = int(np.clip(VOXELS // calibration.num_voxels, FEWEST, TURNS * families)) if phantoms is None else phantoms
    if not np.isfinite(snrs_db).all() or count < 1:
        raise InputError(f"SNR {list(snrs_db)} dB, {count} phantoms: expected numbers, and at least one phantom")
    sizes = [abs(length) / n for length, n in zip(calibration.field_of_view, calibration.grid, strict=True)]
    aspect = [size / sizes[-1] for size in sizes[:-1]]
    truth = heldout.phantoms(count, [seed, 0], calibration.grid, aspect)
    truth = truth[truth.reshape(count, -1).any(axis=1)]  # on a line of voxels some have nothing to show
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
    """Selected rows (F, M) that images (F, *grid) would give, with noise at exactly this SNR over the whitened rows."""
    y = (images.reshape(len(images), -1) @ calibration.basis) * calibration.singular_values
    weights = calibration.weights
    # The projection is U^T W, so U y is its transpose's product, whitened once more than the rows are.
    signals = (y @ calibration.projection).conj() / weights
    noise = rng.standard_normal((2, *signals.shape))
    noise = noise[0] + 1j * noise[1]
    loudness = np.linalg.norm(signals, axis=1) / np.linalg.norm(noise, axis=1) * 10 ** (-snr_db / 20)
    return np.asarray((signals + loudness[:, None] * noise) / weights, dtype=np.complex64)
