"""Ten usual mistakes on the command line give one line that says what is wrong, where, and what to do."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mpi_fast.bundle import packaged, sealed
from mpi_fast.cli import app


def call(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    """A scanner's files, its calibration, and the files of another scanner, on 8 x 9 voxels."""
    folder = tmp_path_factory.mktemp("lab")
    common = ["--grid", "8x9", "--field-of-view", "40", "--frames", "2", "--background-frames", "4"]
    assert call("simulate", folder, *common).exit_code == 0
    other = [*common, "--gradient", "-1.5", "--measurement", folder / "other.mdf"]
    assert call("simulate", *other).exit_code == 0
    done = call("calibrate", folder / "system-matrix.mdf", "-o", folder / "scanner.h5")
    assert done.exit_code == 0, done.output
    np.save(folder / "S.npy", np.ones((60, 72), np.complex64))
    return folder


@pytest.fixture
def mistake(lab, tmp_path, monkeypatch):
    """Run a command in a separate folder; returns its line of error. No file may be written or changed."""
    for file in lab.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        before = set(Path().rglob("*"))
        done = call(*arguments)
        assert done.exit_code == 2, done.output
        errors = [line for line in done.stderr.splitlines() if not line.startswith("note: ")]
        assert len(errors) == 1, done.stderr
        assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit)
        assert set(Path().rglob("*")) == before
        return errors[0]

    return run


RECONSTRUCT = "reconstruct", "measurement.mdf", "-c", "scanner.h5"


def test_a_wrong_path(mistake):
    assert "mesurement.mdf: " in mistake("reconstruct", "mesurement.mdf", "-c", "scanner.h5")
    assert "skanner.h5: " in mistake("reconstruct", "measurement.mdf", "-c", "skanner.h5")


def test_swapped_files(mistake):
    error = mistake("reconstruct", "system-matrix.mdf", "-c", "measurement.mdf")
    assert "measurement.mdf" in error or "system-matrix.mdf" in error
    assert "system matrix" in error


def test_a_wrong_grid(mistake):
    error = mistake("calibrate", "S.npy", "--grid", "8x8", "--field-of-view", "40", "-o", "new.h5")
    assert "(60, 72)" in error
    assert "64 for 8 x 8 voxels" in error


def test_a_checkpoint_in_the_place_of_a_bundle(mistake):
    error = mistake(*RECONSTRUCT, "--model", "model.pt")
    assert "model.pt: not a model bundle" in error
    assert "python -m mpi_fast.export model.pt" in error


def test_the_matrix_of_another_scanner(mistake):
    error = mistake("reconstruct", "other.mdf", "-c", "scanner.h5")
    assert "other.mdf: gradient" in error
    assert "the calibration has" in error


def test_an_extra_that_is_not_installed(mistake, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install" in mistake(*RECONSTRUCT, "--png", "images.png")


def test_a_folder_that_cannot_be_written(mistake, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    assert "images.mdf: cannot be written: no permission" in mistake(*RECONSTRUCT, "-o", "images.mdf")
    assert "the folder results does not exist" in mistake(*RECONSTRUCT, "-o", "results/images.mdf")


def test_a_bad_suffix(mistake):
    error = mistake(*RECONSTRUCT, "-o", "images.tiff")
    assert "images.tiff" in error
    assert ".mdf" in error


def test_frames_beyond_the_end(mistake):
    error = mistake(*RECONSTRUCT, "--frames", "5:9")
    assert "measurement.mdf" in error
    assert " 2 " in error


def test_an_old_bundle(mistake):
    shutil.copytree(packaged(), "model")
    manifest = Path("model/manifest.json")
    manifest.write_text(json.dumps(sealed({**json.loads(manifest.read_text()), "format": 3})))
    assert "export its checkpoint again" in mistake(*RECONSTRUCT, "--model", "model")


def test_no_gpu(mistake):
    error = mistake(*RECONSTRUCT, "--device", "cuda")
    assert "cuda" in error.lower()
    assert "install" in error or "no " in error
