"""Measured data of real scanners, if available, from the matrix to images by the bundled network.

The data are public, under the MIT licence, and not part of the project, see `test_real_files`.
"""

import json
import sys

import numpy as np
import pytest
import real_scanners
from test_real_files import ARRAY, HEAD, REAL, SOURCES, explained
from typer.testing import CliRunner

from mpi_fast.arrays import frames_of, read_array
from mpi_fast.calibration import Calibration
from mpi_fast.cli import app
from mpi_fast.methods.art import Kaczmarz

pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason=f"no measured data in {REAL}: of {' and '.join(SOURCES)}")

LINES, POSITIONS, EMPTY = 3, 9, (0, 10, 20)
OF_LINES = "--empty", "0,10,20"


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    assert result.exit_code == 0, result.output
    return result


@pytest.fixture(scope="module")
def array(tmp_path_factory):
    saved = tmp_path_factory.mktemp("array") / "S.h5"
    run("calibrate", ARRAY / "S.mat", "--grid", "8x8", "--field-of-view", "80", "-o", saved)
    return saved


def test_info_says_how_little_a_scanner_without_gradient_resolves(array, tmp_path):
    shown = run("info", array, "--json", tmp_path / "info.json", "--png", tmp_path / "map.png")
    found = json.loads((tmp_path / "info.json").read_text())[str(array)]["limits"]
    assert all(4 < one["effective_rank"] < 14 for one in found)  # singular values fall to 0.2 % by the eighth
    assert all(one["psnr_db"] < 20 for one in found)
    assert "8 x 8 voxels" in shown.stdout
    assert (tmp_path / "map.png").is_file()


def test_images_of_the_array_explain_the_signals_better_than_kaczmarz_of_its_authors(array, tmp_path):
    """Kaczmarz with 1000 sweeps and 5e-4; the smallest residuals of non-negative images are 0.7 to 4.2 %."""
    calibration = Calibration.load(array)
    for number, most in ((1, 0.012), (2, 0.012), (3, 0.012), (4, 0.06), (5, 0.055)):
        path, images = ARRAY / f"b{number}.mat", tmp_path / "images.npz"
        run("reconstruct", path, "-c", array, "-o", images)
        frames = frames_of(read_array(path), calibration)
        (rows,) = calibration.rows(frames)
        image = np.load(images)["image"][0]
        theirs = Kaczmarz(calibration, strength=5e-4, iterations=1000)(frames).image[0]
        left = explained(calibration, image, rows)
        assert left < explained(calibration, theirs, rows)
        assert left < most
        assert 1 <= (image > image.max() / 2).sum() <= 20  # compact
        assert image.min() >= 0


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    """The third harmonic, at 77 kHz, contains half of the information; 40 kHz excludes only the drive frequency."""
    saved = tmp_path_factory.mktemp("head") / "scanner.h5"
    layout = "--grid", "3x9", "--field-of-view", "90,30", "--sampling-rate", 2 * 1953125, *OF_LINES
    rows = "--min-frequency", 40e3, "--snr-threshold", 3
    run("calibrate", HEAD / "systemMatrixNew.h5", "--variable", "matrix", *layout, *rows, "-o", saved)
    return saved


def test_info_shows_a_grid_of_three_lines(head, tmp_path):
    shown = run("info", head, "--json", tmp_path / "info.json").stdout
    assert "3 x 9 voxels, 30 x 90 mm" in shown
    assert json.loads((tmp_path / "info.json").read_text())[str(head)]["limits"][1]["effective_rank"] < 13


def test_the_second_scan_of_the_head_is_found_where_it_was_in_all_frames_that_hold_signal(head, tmp_path):
    """A frame contains signal if its own rows have an SNR of 20 dB; this criterion does not use positions.

    26 of 27 frames have 32 to 50 dB. The last one, the ninth position of the third line, has 10 dB. The cosine between
    its rows and those of the first scan is 0.3, while all others have 0.99 or more.
    """
    second, images = HEAD / "test_systemMatrixNew.h5", tmp_path / "images.npz"
    run("reconstruct", second, "--variable", "matrix", *OF_LINES, "-c", head, "-o", images)
    found = np.load(images)
    assert found["image"].shape == (27, LINES, POSITIONS)
    holds = found["snr_db"] > 20
    assert np.flatnonzero(~holds).tolist() == [26]
    assert found["snr_db"][holds].min() > 30
    along = found["image"].sum(axis=1).argmax(axis=1)
    np.testing.assert_array_equal(along[holds], np.tile(np.arange(POSITIONS), LINES)[holds])

    calibration = Calibration.load(head)
    rows = calibration.rows(frames_of(read_array(second), calibration, empty=EMPTY)) * calibration.weights
    first = (calibration.matrix * calibration.weights[:, None]).T
    cosine = np.abs((rows.conj() * first).sum(axis=1)) / np.linalg.norm(rows, axis=1) / np.linalg.norm(first, axis=1)
    assert (cosine > 0.98).tolist() == holds.tolist()


def test_phantoms_of_the_head_become_images(head, tmp_path):
    for name in ("phantom", "test_phantom"):
        run("reconstruct", HEAD / f"{name}.h5", "--variable", "matrix", "-c", head, "-o", tmp_path / "images.npz")
        image = np.load(tmp_path / "images.npz")["image"]
        assert np.isfinite(image).all()
        assert image.max() > 0


def test_the_figures_of_the_docs_are_made_of_these_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["real_scanners.py", "--data", str(REAL), "--output", str(tmp_path)])
    real_scanners.main()
    shown = capsys.readouterr().out
    assert "right in 26 of 27 frames, wrong: [26]" in shown
    assert {path.name for path in tmp_path.iterdir()} == {"real-array-2026.png", "real-head-2018.png"}
