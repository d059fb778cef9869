"""The held-out scanners and phantoms of `mpi_fast.heldout` as MDF files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.experiment import acquisition_of, save_matrix
from mpi_fast.heldout import Array, HeldOut
from mpi_fast.mdf import MeasurementFile, write_measurement
from mpi_fast.noise import complex_noise, noise_strength


def write_calibration_file(heldout: HeldOut, path: Path) -> NDArray[np.complex64]:
    """Measure the scanner's system matrix with noise, write it, and return the one without noise, (C, K, N)."""
    matrix = heldout.measure_matrix()
    save_matrix(path, matrix)
    return matrix.truth


def measure(
    heldout: HeldOut, truth: NDArray[np.complex64], calibration: Calibration, images: Array, snr_db: float, path: Path
) -> NDArray[np.complex64]:
    """Write a measurement of the images, at an SNR over the calibration's rows; return the rows (F, M) read from it."""
    rng = np.random.default_rng((heldout.seed, round(10 * snr_db)))
    clean = np.einsum("fn,ckn->fck", images.reshape(len(images), -1), truth)
    noise = complex_noise(clean.shape, rng)
    selected = calibration.selection
    noise *= noise_strength(clean[:, selected], noise[:, selected], snr_db)[:, None, None]
    write_measurement(path, (clean + noise).astype(np.complex64), acquisition=acquisition_of(heldout.scanner))
    with MeasurementFile(path) as file:
        return np.concatenate([calibration.rows(chunk) for chunk in file.frames()])
