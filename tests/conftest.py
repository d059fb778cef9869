"""A measured scanner that several test modules share; settings for machines that have other work, too."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads wait for each other in busy loops: read when it loads

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.noise import complex_noise
from mpi_fast.simulation import Scanner

settings.register_profile("patient", deadline=None)  # how long an example takes depends on who else uses the machine
settings.load_profile("patient")


@dataclass(frozen=True)
class Measured:
    """A scanner, its noise-free matrix (C, K, N), and what was measured: matrix and background frames with noise."""

    scanner: Scanner
    truth: NDArray[np.complex64]
    matrix: NDArray[np.complex128]
    background: NDArray[np.complex128]
    noise_std: float

    def calibrate(self, **options: object) -> Calibration:
        return Calibration.from_arrays(
            self.matrix,
            self.scanner.frequencies,
            self.scanner.grid,
            self.scanner.field_of_view,
            background=self.background,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture(scope="session")
def measured() -> Measured:
    """The default scanner on its 19 x 19 grid, with some 350 rows above SNR 5."""
    scanner = Scanner(sub_voxels=2)
    truth = scanner.system_matrix()
    rng = np.random.default_rng(3)
    strength = np.linalg.norm(truth, axis=2) / 19
    level = np.sort(strength[:, scanner.frequencies >= 80e3].ravel())[::-1][350] / 5
    noise = complex_noise((truth.shape[2] + 40, *truth.shape[:2]), rng).transpose(1, 2, 0) * level
    return Measured(scanner, truth, truth + noise[..., 40:], noise[..., :40], float(level))


@pytest.fixture(scope="session")
def calibration(measured: Measured) -> Calibration:
    return measured.calibrate()


@pytest.fixture(scope="session")
def true_rows(measured: Measured, calibration: Calibration) -> NDArray[np.complex64]:
    """The selected rows of the noise-free matrix, (M, N)."""
    return measured.truth[calibration.selection]


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The bundle of a small network, in both precisions, frozen for a scanner; a repository beside it."""
    from exported import FROZEN_GRID, checkpoint, measured

    from mpi_fast.export.__main__ import make_bundle

    folder = tmp_path_factory.mktemp("exported")
    measured(FROZEN_GRID)[0].save(folder / "scanner.h5")
    return make_bundle(
        checkpoint(folder / "small.pt"),
        folder / "small",
        precision=("fp32", "fp16"),
        calibration_file=folder / "scanner.h5",
        triton=folder / "repository",
    )
