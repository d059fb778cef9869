"""The experiment of the demo: phantoms in a special scanner, at one noise level, by two methods."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.methods.art import Kaczmarz
from mpi_fast.metrics import psnr, ssim
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.reconstruction import Reconstruction
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import ReceiveChain, Scanner

PHANTOMS = "tumours", "vessels", "shape", "resolution", "concentration"  # the last three are not used in training
COUNT = 8  # of each phantom
STRENGTHS = 10.0 ** np.arange(-4, 1)  # of ART's regularisation; the best one for each noise level is used
SWEEPS = 10


@dataclass(frozen=True)
class Trial:
    """Frames at one noise level, and their images."""

    snr_db: float
    weighted_snr_db: float
    rows: NDArray[np.complex64]
    truth: NDArray[np.float32]
    strength: float
    baseline: NDArray[np.float32]
    result: Reconstruction


def scanner() -> Scanner:
    """A scanner whose particles, fields and receive chain differ from the defaults."""
    receive = ReceiveChain(
        coupling=((38.0, -0.9), (0.7, 61.0), (-1.2, 2.1)),
        resonance=(0.8e6, 1.3e6, 2.0e6),
        quality=1.4,
        delay=(0.9e-6, 0.2e-6, 1.1e-6),
    )
    return Scanner(gradient=(-1.15, -1.15), drive_amplitude=(16e-3, 15e-3), core_diameter=22.5e-9, receive=receive)


def run_trial(reconstructor: Reconstructor, truth: NDArray[np.complex64], snr_db: float, seed: int) -> Trial:
    """Measure every phantom with the true matrix (M, N), and reconstruct with the measured calibration."""
    calibration = reconstructor.calibration
    images = generate(PHANTOMS, COUNT * len(PHANTOMS), calibration.grid, np.random.default_rng([seed, 1]))
    images /= images.max(axis=(1, 2), keepdims=True)  # equal peaks, so that one colour scale suits all
    clean = images.reshape(len(images), -1) @ truth.T
    rows = add_noise(clean, snr_db, np.random.default_rng([seed, 2, round(snr_db)]))
    loudness, noise = (np.linalg.norm(part * calibration.weights, axis=1) for part in (clean, rows - clean))
    weighted = float((20 * np.log10(loudness / noise)).mean())
    tried = {
        strength: Kaczmarz(calibration, strength=strength, iterations=SWEEPS)(rows).image
        for strength in STRENGTHS.tolist()
    }
    best = max(tried, key=lambda strength: float(psnr(tried[strength], images).mean()))
    return Trial(snr_db, weighted, rows, images, best, tried[best], reconstructor(rows))


def figures_of(trial: Trial, milliseconds: float) -> list[dict[str, Any]]:
    """One line for each method."""
    methods = {"ART": trial.baseline, "mpi-fast": trial.result.image}
    lines: list[dict[str, Any]] = [
        {
            "snr_db": trial.snr_db,
            "method": name,
            "psnr_db": float(psnr(images, trial.truth).mean()),
            "ssim": float(ssim(images, trial.truth).mean()),
        }
        for name, images in methods.items()
    ]
    lines[0]["strength"] = trial.strength
    lines[1] |= {"snr_found_db": float(trial.result.snr_db.mean()), "weighted_snr_db": trial.weighted_snr_db}
    lines[1] |= {"ms_per_frame": milliseconds}
    return lines
