"""The scanner and the frames that the speed benchmarks share."""

from pathlib import Path

import numpy as np
import pytest
from heldout_files import measure, write_calibration_file
from numpy.typing import NDArray
from volume_frame import signals_of, synthetic_calibration

from mpi_fast.calibration import Calibration
from mpi_fast.heldout import SCANNERS, phantoms

FRAMES = 64
VOLUME = (19, 19, 19), 1000, 3000  # grid, rank and rows of a volume of OpenMPI's scanner


@pytest.fixture(scope="session")
def scanner(tmp_path_factory: pytest.TempPathFactory) -> tuple[Calibration, NDArray[np.complex64]]:
    """Calibration of held-out scanner A, and its system matrix without noise (C, K, N)."""
    file = Path(tmp_path_factory.mktemp("scanner")) / "sm.mdf"
    truth = write_calibration_file(SCANNERS[0], file)
    return Calibration.from_mdf(file), truth


@pytest.fixture(scope="session")
def measured(
    scanner: tuple[Calibration, NDArray[np.complex64]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Calibration, NDArray[np.complex64]]:
    """Calibration of held-out scanner A and the selected rows of 64 frames at 25 dB."""
    calibration, truth = scanner
    file = Path(tmp_path_factory.mktemp("frames")) / "m.mdf"
    return calibration, measure(SCANNERS[0], truth, calibration, phantoms(FRAMES, 5), 25.0, file)


@pytest.fixture(scope="session")
def volume() -> tuple[Calibration, NDArray[np.complex64]]:
    """A calibration of a volume, of random numbers, and the selected rows of a frame."""
    calibration = synthetic_calibration(*VOLUME)
    return calibration, signals_of(calibration)
