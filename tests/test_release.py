"""bench/release.py runs release 0.1 from git's history on the same frames; without the history it gives an error."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mpi_fast.comparison import Setup, frames, measured
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.experiment import acquisition_of, save_matrix
from mpi_fast.mdf import write_measurement
from mpi_fast.metrics import psnr

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import quality
import release

SETUP = Setup(phantoms=7)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The files of the release, if this clone contains its commit."""
    try:
        return release.checked_out(tmp_path_factory.mktemp("release"))
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def matrix_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("matrix") / "sm.mdf"
    save_matrix(path, measured(SETUP.heldout)[0])
    return path


def test_the_release_reconstructs_the_frames_of_a_file(tree, matrix_file, tmp_path):
    spectra, truth = frames(SETUP, 25.0)
    acquisition, files = acquisition_of(SETUP.heldout.scanner), (tmp_path / "all.mdf", tmp_path / "first.mdf")
    write_measurement(files[0], spectra, acquisition=acquisition)
    write_measurement(files[1], spectra[:2], acquisition=acquisition)
    with release.running(tree, matrix_file) as old:
        found, first = old(files[0]), old(files[1])
        spent = old.time(files[0], frame=3)
    assert found.image.shape == found.std.shape == truth.shape
    assert psnr(found.image, truth).mean() > 33  # its README promised 36.2 dB over 64 frames
    assert (found.std > 0).any(axis=(1, 2)).all()
    np.testing.assert_allclose(first.image, found.image[:2], atol=1e-4 * found.image.max())
    assert spent["cpu_ms"] > 0
    assert 0 < spent["wall_ms"] < found.wall_ms


def test_the_release_is_what_its_commit_holds(tree):
    manifest = json.loads((tree / "mpi_fast/models/default/manifest.json").read_text())
    assert manifest["kind"] == "mpi-fast model"
    assert not (tree / "mpi_fast/models/posterior").exists()


def test_a_release_that_fails_says_why(tree, tmp_path):
    with release.running(tree, tmp_path / "none.mdf") as old, pytest.raises(MPIFastError, match=r"none\.mdf"):
        old(tmp_path / "m.mdf")


def test_another_package_than_the_release_is_refused(tmp_path, matrix_file):
    (tmp_path / "mpi_fast").mkdir()  # an empty folder, so Python imports the installed package
    with release.running(tmp_path, matrix_file) as old, pytest.raises(MPIFastError, match="expected one of"):
        old(tmp_path / "m.mdf")


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_without_its_history_one_line_says_so(tmp_path):
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    with pytest.raises(InputError, match=r"has no commit 516305b, expected a clone with its whole history"):
        release.checked_out(tmp_path / "tree", repository=tmp_path)


def test_the_table_has_gains_and_times(tree, tmp_path, monkeypatch, capsys):
    report, markdown = tmp_path / "release.json", tmp_path / "release.md"
    options = "--scanners", "in", "--snrs", "15,25", "--frames", "7", "--rounds", "2"
    monkeypatch.setattr("sys.argv", ["release.py", *options, "--json", str(report), "--markdown", str(markdown)])
    release.main()
    content = json.loads(report.read_text())
    assert content["commit"] == release.COMMIT
    assert content["model"]["steps"] > 0
    assert [one["snr_db"] for one in content["results"]] == [15.0, 25.0]
    for one in content["results"]:
        found = one["psnr"]
        assert found["gain"] == pytest.approx(found["here"] - found[release.NAME])
        assert found["interval"][0] <= found["gain"] <= found["interval"][1]
        assert 0.5 < one["coverage_95"]["here"] <= 1
        assert 0 < one["rank_correlation"][release.NAME] < 1
    (times,) = content["times"].values()
    assert times["times_faster"] == pytest.approx(times["cpu_ms_then"] / times["cpu_ms"])
    lines = markdown.read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    assert [line.split("|")[2].strip() for line in lines[2:4]] == ["15 dB", "25 dB"]
    assert "times** as long" in lines[-1]


def test_quality_is_that_of_art_and_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "SNRS", (25.0,))
    monkeypatch.setattr(quality, "STRENGTHS", (0.1,))
    monkeypatch.setattr(quality, "SWEEPS", (3,))
    (found,) = quality.evaluate(SETUP.heldout, SETUP.model, 7, tmp_path)
    assert found["psnr"] > found["psnr_art"] + 5
    assert found["gain"] == pytest.approx(found["psnr"] - found["psnr_art"], abs=1e-3)
    assert f"| **{found['psnr']:.1f} dB / {found['ssim']:.3f}** |" in quality.table([found]).splitlines()[2]
