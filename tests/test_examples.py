"""The examples run as they are printed, each in a separate folder, and show what they claim."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from exported import FROZEN_GRID, measured

from mpi_fast import Calibration, Reconstructor
from mpi_fast.bundle import FROZEN, PLANE, packaged
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.mdf import read_reconstruction
from mpi_fast.phantoms import generate
from mpi_fast.pipelines.graph import PosteriorGraph
from mpi_fast.simulation import Scanner

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".cpp"))


@pytest.fixture
def run(tmp_path):
    """Run an example in an empty folder; returns its output."""

    def example(name: str, *arguments: str) -> str:
        environment = os.environ | {
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error::RuntimeWarning",
        }
        command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return example


def picture(folder: Path, name: str) -> bool:
    return (folder / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def numbers(pattern: str, text: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, text)]


def test_a_first_image(run, tmp_path):
    assert min(numbers(r"PSNR of the image (\S+) dB", run("first_image"))) > 25
    assert picture(tmp_path, "first_image.png")


def test_own_files(run, tmp_path):
    first = run("own_files")
    assert first.count("nothing to report") == 6
    assert read_reconstruction(tmp_path / "images.mdf").shape[0] == 6
    assert picture(tmp_path, "own_files.png")
    assert run("own_files", "system-matrix.mdf", "measurement.mdf") == first  # also with existing files


def test_arrays_of_matlab(run, tmp_path):
    assert min(numbers(r"(\d\d\.\d)(?:,| dB)", run("matlab_arrays"))) > 20  # rotated or mirrored images have far less
    assert np.load(tmp_path / "images.npz")["image"].shape == (3, 19, 19)
    assert picture(tmp_path, "matlab_arrays.png")


def test_a_volume(run, tmp_path):
    found = run("volume")
    assert "images (2, 7, 9, 9)" in found
    assert min(numbers(r"(\d\d\.\d)(?:,| dB)", found)) > 20
    assert picture(tmp_path, "volume.png")


def test_uncertainty_in_a_region(run, tmp_path):
    line = r"frame \d: (\S+) \+- (\S+) \(independent (\S+), alike (\S+)\), in truth (\S+)"
    frames = np.array(re.findall(line, run("region_uncertainty")), dtype=float)
    assert frames.shape == (6, 5)
    total, deviation, alone, alike, truth = frames.T
    assert (np.abs(total - truth) <= 3 * alike + 0.02).all()
    assert (alone <= alike).all()
    assert (deviation <= 1.5 * alike + 0.02).all()  # fully correlated errors are the worst case
    assert deviation.max() > 0
    assert picture(tmp_path, "region_uncertainty.png")


def test_a_wrong_calibration(run, tmp_path):
    found = run("wrong_calibration")
    assert "as calibrated: 0 of 12 frames are foreign" in found
    assert numbers(r"40 % higher: (\d+) of", found)[0] > 9
    assert "gradient 30 % stronger: refused: measurement.mdf: gradient" in found
    assert picture(tmp_path, "wrong_calibration.png")


def test_a_method_of_ones_own(run, tmp_path):
    quality = dict(re.findall(r"^(\S+) +at 15 dB: PSNR (\S+) dB", run("own_method"), re.MULTILINE))
    assert set(quality) == {"Landweber", "Tikhonov", "mpi-fast"}
    assert float(quality["mpi-fast"]) > float(quality["Landweber"]) > 15
    assert picture(tmp_path, "own_method.png")


def test_a_cluster(run):
    pytest.importorskip("ray", reason="Ray is not installed")
    lines = run("ray_cluster").splitlines()
    assert [line.partition(", PSNR")[0] for line in lines] == ["8 images"] * 6  # and no messages of Ray
    assert min(numbers(r"PSNR (\S+) dB", "".join(lines))) > 20


def test_arrays_on_the_gpu(run):
    """Without a GPU; test_programs.py uses a substitute for one."""
    found = run("gpu_arrays")
    assert found == "There is no GPU here, or no CuPy.\n" or numbers(r"PSNR (\S+) dB", found)[0] > 20


def test_onnx_without_mpi_fast(run, tmp_path):
    """The images are those of `Reconstructor`, from a saved calibration and samples, without mpi-fast."""
    model = packaged() / PLANE
    rng = np.random.default_rng(0)
    matrix = measure_matrix(Scanner(sub_voxels=1), 20.0, rng)
    calibration = matrix.calibrate()
    calibration.save(tmp_path / "scanner.h5")
    spectra = Receiver(matrix, calibration.selection, 20.0, rng).frames(generate("tumours", 3, (19, 19), rng))
    samples = np.fft.irfft(spectra, calibration.num_samples, axis=-1).astype(np.float32)
    np.save(tmp_path / "signals.npy", samples)
    source = (ROOT / "examples/onnx_without_mpi_fast.py").read_text(encoding="utf-8")
    assert "import mpi_fast" not in source
    assert "from mpi_fast" not in source
    run("onnx_without_mpi_fast", "scanner.h5", str(model), "signals.npy")
    found = np.load(tmp_path / "images.npz")
    scanner = Calibration.load(tmp_path / "scanner.h5")
    expected = Reconstructor(scanner, evaluations=1, threads=1)(samples)
    peak = expected.image.max()
    np.testing.assert_allclose(found["image"][:, 0], expected.image, atol=1e-4 * peak)
    np.testing.assert_allclose(found["std"][:, 0], expected.std, atol=1e-4 * peak)
    assert (found["lower"] <= found["image"]).all()
    assert (found["upper"] >= found["image"]).all()


def test_a_frozen_network_in_cpp(exported, tmp_path):
    """Built as documented; gives image and half widths of ONNX Runtime from a bundle's ONNX file and raw numbers."""
    helpers = pytest.importorskip("openvino.utils", reason="OpenVINO, which has a C++ interface, is not installed")
    for tool in ("cmake", "g++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")

    def command(*arguments):
        return subprocess.run(list(map(str, arguments)), capture_output=True, text=True, cwd=tmp_path)

    where = f"-DOpenVINO_DIR={helpers.get_cmake_path()}"
    for arguments in (["-S", ROOT / "examples", "-B", "build", where], ["--build", "build"]):
        done = command("cmake", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr
    calibration, signals, _ = measured(FROZEN_GRID)
    signals.tofile(tmp_path / "rows.bin")
    expected = PosteriorGraph(calibration, exported)(signals)
    wanted = np.stack([expected.image, expected.quantiles[:, 1:] * expected.std], axis=1)
    network, peak = exported.path / FROZEN, np.abs(wanted).max(axis=(0, 2), keepdims=True)
    for precision, close in (([], 1e-4), (["bf16"], 0.05)):
        done = command("build/frozen", network, "rows.bin", "images.bin", *precision)
        assert (done.returncode, done.stdout) == (0, f"wrote images.bin: {len(signals)} frames\n"), done.stderr
        found = np.fromfile(tmp_path / "images.bin", np.float32).reshape(wanted.shape)
        np.testing.assert_allclose(found / peak, wanted / peak, atol=close)
    refused = command("build/frozen", network, "nothing.bin", "images.bin")
    assert (refused.returncode, refused.stderr) == (1, "nothing.bin: cannot be read\n")
    (tmp_path / "short.bin").write_bytes(bytes(12))
    refused = command("build/frozen", network, "short.bin", "images.bin")
    assert refused.stderr == f"short.bin: expected frames of {signals.shape[1]} complex64 rows\n"
    assert command("build/frozen").returncode == 2


def test_there_are_few_and_they_are_short():
    assert 1 <= len(EXAMPLES) <= 12
    assert max(len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES) <= 80


def test_every_example_stands_in_the_docs_as_it_is_in_its_file():
    pages = [page.read_text() for page in (ROOT / "docs").glob("*.md")]
    taken = {name for page in pages for name in re.findall(r'^--8<-- "(examples/[\w.]+)', page, re.MULTILINE)}
    assert taken == {f"examples/{path.name}" for path in EXAMPLES}
