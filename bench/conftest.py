"""The scanner, the frames and the engines that the speed benchmarks share."""

from pathlib import Path

import numpy as np
import pytest
from heldout import measure, write_calibration_file
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.heldout import SCANNERS, phantoms

FRAMES = 64


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Calibration, NDArray[np.complex64]]:
    """Calibration of held-out scanner A and the selected rows of 64 frames at 25 dB."""
    folder = Path(tmp_path_factory.mktemp("scanner"))
    truth = write_calibration_file(SCANNERS[0], folder / "sm.mdf")
    calibration = Calibration.from_mdf(folder / "sm.mdf")
    return calibration, measure(SCANNERS[0], truth, calibration, phantoms(FRAMES, 5), 25.0, folder / "m.mdf")
