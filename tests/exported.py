"""A small network, the names of all artefacts of an export, and calibrations for it."""

from math import prod

import numpy as np
import torch

from mpi_fast.bundle import FROZEN, PLANE, VOLUME, half_name
from mpi_fast.calibration import Calibration
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner
from mpi_fast.training.checkpoint import FORMAT
from mpi_fast.training.network import PosteriorConfig, PosteriorNetwork

FROZEN_GRID = (9, 8)
EVERYTHING = {one for name in (PLANE, VOLUME, FROZEN) for one in (name, half_name(name))}


def checkpoint(path, std=0.05, made="by a test"):
    """Write the checkpoint of a small network in which no output is negligible."""
    torch.manual_seed(1)
    config = PosteriorConfig(blocks=3, width=8, inner=8, embedding=8, coarse_every=2)
    network = PosteriorNetwork(config)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(std * torch.randn(value.shape))
    content = {
        "format": FORMAT,
        "method": "posterior",
        "grid": [19, 19],
        "network": config.to_dict(),
        "sigma_range": [0.02, 10.0],
        "state": {name: value.contiguous() for name, value in network.state_dict().items()},
        "provenance": {"made": made},
    }
    torch.save(content, path)
    return path


def measured(grid, snr=20.0):
    """A calibration, noisy rows of three images, and the images."""
    rng = np.random.default_rng(prod(grid))
    if len(grid) == 2:
        scanner = Scanner(grid=grid, drive_amplitude=(6e-3, 6e-3))
        matrix, frequencies, field_of_view = scanner.system_matrix(), scanner.frequencies, scanner.field_of_view
        images = generate(["tumours", "dots", "regions"], 3, grid, seed=2).reshape(3, -1)
    else:
        matrix = rng.standard_normal((1, 60, prod(grid))) * np.exp(-0.1 * np.arange(60))[:, None] * (1 + 0j)
        frequencies, field_of_view = np.arange(60) * 1e4, (1e-2,) * 3
        images = rng.random((3, prod(grid))).astype(np.float32)
    rows = RowFilter(min_frequency=0.0, max_frequency=3e5) if len(grid) == 3 else RowFilter(max_frequency=3e5)
    calibration = Calibration.from_arrays(matrix, frequencies, grid, field_of_view, rows=rows)
    signals = add_noise(images @ calibration.matrix.T, snr, np.random.default_rng(0)).astype(np.complex64)
    return calibration, signals, images.reshape(3, *grid)


def planes(rows):
    """Selected rows as the inputs of a frozen graph."""
    return {"real": np.ascontiguousarray(rows.real), "imag": np.ascontiguousarray(rows.imag)}


def relative(found, expected):
    """Largest difference, relative to the largest expected value."""
    return np.abs(found - expected).max() / np.abs(expected).max()
