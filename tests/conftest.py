"""Fixtures of several test modules: a measured scanner, files, exports. Settings for busy machines."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads wait in busy loops; read when it is loaded

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.noise import complex_noise
from mpi_fast.simulation import Scanner

settings.register_profile("patient", deadline=None)  # the time of an example depends on other work on the machine
settings.load_profile("patient")

# The longest modules begin first, so that at the end no process waits for another. The first two do not share exports,
# for which the second would wait.
LONGEST = ["graph_pipeline", "live_minute", "kernels_shim", "device_samples", "device_pipeline", "tensorrt_build"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the modules of `LONGEST` first; the others keep their order."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@dataclass(frozen=True)
class Measured:
    """A scanner, its noise-free matrix (C, K, N), and the measured matrix and background frames, with noise."""

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
def kernel_folder(tmp_path_factory):
    """Folder in which g++ builds the CUDA kernels, once for all tests."""
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def device(kernel_folder):
    """A device that runs kernels built by g++; fails the test if a kernel wrote outside its arrays."""
    from shim import ShimDevice

    device = ShimDevice(kernel_folder)
    yield device
    device.check_guards()


@pytest.fixture
def frame(calibration):
    """Makes a frame whose selected rows have one value."""
    return lambda value: np.full(calibration.num_rows, value, np.complex64)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Simulated files, and a calibration saved from them; tests must not change them."""
    from command_line import succeed

    folder = tmp_path_factory.mktemp("simulated")
    succeed("simulate", folder, "--frames", 3, "--background-frames", 4, "--snr", 30, "--phantoms", "tumours,shape")
    succeed("calibrate", folder / "system-matrix.mdf", "-o", folder / "scanner.h5", "--json", folder / "calibrate.json")
    return folder


@pytest.fixture
def files(made, tmp_path):
    """A copy of the files of `made` that a test may damage."""
    return Path(shutil.copytree(made, tmp_path / "files"))


@pytest.fixture(scope="module")
def volts():
    """Signals (C, V, N + 3): frames 0, 5 and 13 without a sample."""
    from array_signals import CHANNELS, EMPTY, SAMPLES

    rng = np.random.default_rng(0)
    found = rng.standard_normal((CHANNELS, SAMPLES, 15))
    found[..., EMPTY] *= 0.01
    return found


@pytest.fixture(scope="module")
def spectra(volts):
    return np.fft.rfft(volts, axis=1)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A separate folder for the engines that a test builds."""
    monkeypatch.setenv("MPI_FAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def rtx():
    pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx")
    from mpi_fast import tensorrt_library

    return tensorrt_library.load("tensorrt_rtx")


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """The bundle of a small network, in both precisions and frozen for a scanner, and a Triton repository.

    It is made once, by the first of the processes of pytest-xdist that needs it; tests must not change it.
    """
    from exported import FROZEN_GRID, checkpoint, measured
    from filelock import FileLock

    from mpi_fast.bundle import Bundle
    from mpi_fast.export.__main__ import make_bundle

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "exported"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if (folder / "small").is_dir():
            return Bundle.open(folder / "small")
        measured(FROZEN_GRID)[0].save(folder / "scanner.h5")
        return make_bundle(
            checkpoint(folder / "small.pt"),
            folder / "small",
            precision=("fp32", "fp16"),
            calibration_file=folder / "scanner.h5",
            triton=folder / "repository",
        )
