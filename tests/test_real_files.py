"""Measured data of real scanners, if available, can be opened, and the images explain the signals.

The data are public, under the MIT licence, and not part of the project, see `SOURCES`.
"""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mpi_fast.arrays import calibrate_array, frames_of, read_array
from mpi_fast.calibration import Calibration
from mpi_fast.cli import app
from mpi_fast.methods.art import Kaczmarz
from mpi_fast.methods.tikhonov import Tikhonov
from mpi_fast.preprocessing import RowFilter

REAL = Path(__file__).parents[2] / "shared" / "real"
ARRAY, HEAD = REAL / "array-2026", REAL / "head-2018"
SOURCES = "BUAALGH/ISBI-2026-Heterogeneous-receiving-array", "MagneticParticleImaging/MPIMeasurements.jl (2018)"

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"no measured data in {REAL}: of {' and '.join(SOURCES)}")


def explained(calibration, image, rows):
    """Relative residual of the signals."""
    return float(np.linalg.norm(calibration.matrix @ image.ravel() - rows) / np.linalg.norm(rows))


@pytest.fixture(scope="module")
def array():
    return calibrate_array(read_array(ARRAY / "S.mat"), (8, 8), (0.08, 0.08))


def test_a_matlab_matrix_is_as_matlab_has_it(array):
    assert read_array(ARRAY / "S.mat").shape == (40, 64)
    assert array.grid == (8, 8)
    assert array.num_rows == 40
    values = array.singular_values
    assert values[7] / values[0] == pytest.approx(0.002, abs=0.001)  # as its README says


# The relative residuals of NNLS are 0.8, 0.7, 0.8, 4.2 and 3.2 %.
@pytest.mark.parametrize(("number", "left"), [(1, 0.02), (2, 0.04), (3, 0.04), (4, 0.065), (5, 0.055)])
def test_images_of_five_phantoms_explain_their_signals(array, number, left):
    frames = frames_of(read_array(ARRAY / f"b{number}.mat"), array)
    assert frames.shape == (1, 1, 40)
    image = Kaczmarz(array, strength=5e-4, iterations=1000)(frames).image[0]
    assert explained(array, image, array.rows(frames)[0]) < left
    assert 1 <= (image > image.max() / 2).sum() <= 20  # compact


def test_the_command_line_calibrates_it(tmp_path):
    saved = tmp_path / "S.h5"
    command = ["calibrate", str(ARRAY / "S.mat"), "--grid", "8x8", "--field-of-view", "80", "-o", str(saved)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert Calibration.load(saved).rank == 64


@pytest.mark.parametrize("min_frequency", [40e3, 80e3])
def test_a_matrix_measured_twice_tells_the_position_of_every_sample(min_frequency):
    """Three lines, each with an empty frame and nine positions; the last frame of the second scan has no signal."""
    empty = 0, 10, 20
    calibration = calibrate_array(
        read_array(HEAD / "systemMatrixNew.h5"),
        (3, 9),
        (0.03, 0.09),
        empty=empty,
        sampling_rate=2 * 1953125.0,
        rows=RowFilter(min_frequency=min_frequency, snr_threshold=3),
    )
    frames = frames_of(read_array(HEAD / "test_systemMatrixNew.h5"), calibration, empty=empty)
    position = np.tile(np.arange(9), 3)
    image = Kaczmarz(calibration, iterations=100)(frames).image
    assert image.shape == (27, 3, 9)
    assert (image.sum(axis=1).argmax(axis=1) == position)[:26].all()


def test_signals_of_a_phantom_along_the_line():
    calibration = calibrate_array(
        read_array(HEAD / "systemMatrixNew.h5"), (3, 9), (0.03, 0.09), empty=(0, 10, 20), sampling_rate=2 * 1953125.0
    )
    for name in ("phantom.h5", "test_phantom.h5"):
        image = Tikhonov(calibration)(frames_of(read_array(HEAD / name), calibration)).image
        assert image.shape == (9, 3, 9)
        assert np.isfinite(image).all()
        assert image.max() > 0


def test_the_mdf_file_of_2018_opens_and_reconstructs():
    """Nine positions on a line, one channel, no background, in MDF 2.0 written by Julia with its own field names."""
    calibration = Calibration.from_mdf(HEAD / "systemMatrix.mdf", min_frequency=0, snr_threshold=0)
    assert calibration.grid == (1, 9)
    assert calibration.selection.shape == (1, 77)
    rows = calibration.matrix.T
    image = Tikhonov(calibration)(np.ascontiguousarray(rows)).image[:, 0]
    for each, row in zip(image, rows, strict=True):
        assert explained(calibration, each, row) < 0.3
    result = CliRunner().invoke(app, ["info", str(HEAD / "systemMatrix.mdf")])
    assert result.exit_code == 0, result.output
    assert "9 x 1 x 1 voxels" in result.output


@pytest.mark.parametrize("name", ["Gradio1.h5", "PreinstalledUH.h5"])
def test_measured_transfer_functions_are_read_as_arrays(name):
    frequencies, function = (read_array(HEAD / name, variable) for variable in ("frequencies", "transferFunction"))
    assert function.shape == (3, len(frequencies), 2)
