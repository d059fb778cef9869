"""What the command line shows of files: what was decided, what is odd, and what it follows only when asked."""

import os

import h5py
import numpy as np
import pytest
import scipy.io
from mdf_files import CYCLE, DATA, DRIVE, RECEIVER, acquisition, change, measurement, system_matrix
from typer.testing import CliRunner

from mpi_fast.cli import app
from mpi_fast.cli.info import about
from mpi_fast.mdf import Grid, write_reconstruction


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


def test_info_says_how_a_file_is_read(path):
    system_matrix(path)
    change(path, {f"{RECEIVER}/dataConversionFactor": np.array([[2.0, 0.0], [2.0, 0.0]])})
    change(path, {"/calibration/fieldOfView": [-0.04, 0.03, 0.01]})
    facts = about(path)
    assert facts["scale"].startswith("as stored: the conversion factor is that of raw samples")
    assert facts["order of voxels"] == "xyz, mirrored along x"
    measurement(path)
    assert about(path)["scale"] == "as stored: no conversion factor is stated"
    assert about(path)["odd"] == "nothing"


def test_warnings_are_notes(path):
    measurement(path)
    change(path, {f"{DRIVE}/divider": [[102], [96], [99]], f"{DRIVE}/cycle": 53856 / 2.5e6})
    change(path, {f"{DRIVE}/strength": [[[0.012], [0.012], [0.0]]], f"{DRIVE}/phase": np.zeros((1, 3, 1))})
    result = run("info", path)
    assert f"counts channels without drive; {1e6 * CYCLE:g} us is right" in result.stderr
    assert result.stderr.startswith("note: ")
    assert "counts channels without drive" in result.stdout


def test_links_out_of_the_folder_on_request(tmp_path):
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / "file.mdf"
    old = measurement(path)
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["d"] = old
    with h5py.File(path, "r+") as h5:
        del h5[DATA]
        h5[DATA] = h5py.ExternalLink("../other.h5", "/d")
    assert "outside of the folder" in run("info", path, code=2).stderr
    assert "MDF measurement" in run("info", path, "--external").stdout
    assert "MDF measurement" in run("info", path, "--external", "--untrusted").stdout


@pytest.mark.parametrize("command", ["info", "calibrate"])
def test_pipes_are_not_waited_for(tmp_path, command):
    os.mkfifo(tmp_path / "pipe")
    assert "this is a pipe or a device" in run(command, tmp_path / "pipe", code=2).stderr
    assert "a pipe or a device" in run(command, tmp_path / "pipe", "--untrusted", code=2).stderr


@pytest.mark.parametrize("option", ["-o", "--json", "--png"])
def test_pipes_and_devices_are_not_replaced(tmp_path, option):
    (tmp_path / "m.mdf").touch()
    os.mkfifo(tmp_path / "pipe")
    command = ["reconstruct", str(tmp_path / "m.mdf"), "-c", str(tmp_path / "c.h5"), option, str(tmp_path / "pipe")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "pipe: cannot be written: it is a pipe or a device, and a file name was expected" in result.stderr
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_to_itself(tmp_path):
    (tmp_path / "a.mdf").symlink_to(tmp_path / "a.mdf")
    result = CliRunner().invoke(app, ["info", str(tmp_path / "a.mdf")])
    assert result.exit_code == 2
    assert "a.mdf: the file cannot be opened: Too many levels of symbolic links" in result.stderr


@pytest.mark.parametrize("options", [("--gradient", "nan"), ("--core", "inf"), ("--drive", "0"), ("--grid", "0x3")])
def test_no_folder_is_left_where_nothing_was_simulated(tmp_path, options):
    result = CliRunner().invoke(app, ["simulate", str(tmp_path / "new"), *options])
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_info_describes_arrays(tmp_path):
    stored = {"S": np.ones((3, 4, 5), np.complex64), "f": np.arange(4.0), "title": np.array("a text")}
    np.savez(tmp_path / "a.npz", **stored)
    np.save(tmp_path / "a.npy", stored["S"])
    scipy.io.savemat(tmp_path / "a.mat", stored)
    with h5py.File(tmp_path / "new.mat", "w", userblock_size=512) as h5:  # MATLAB 7.3 stores axes in reverse
        h5["S"] = np.ones((5, 4, 3))
    with (tmp_path / "new.mat").open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["S"] = np.ones((3, 4), np.int16)
        h5.create_group("more")
    assert about(tmp_path / "a.npz")["S"] == "complex64, 3 x 4 x 5"
    assert about(tmp_path / "a.npz")["f"] == "float64, 4"
    assert about(tmp_path / "a.npy")["its array"] == "complex64, 3 x 4 x 5"
    assert about(tmp_path / "a.mat")["S"] == "complex64, 3 x 4 x 5"
    assert about(tmp_path / "new.mat")["S"] == "float64, 3 x 4 x 5"
    assert about(tmp_path / "a.h5")["S"] == "int16, 3 x 4"
    assert "is a group" in about(tmp_path / "a.h5")["more"]
    for name in ("a.npz", "a.npy", "a.mat", "new.mat", "a.h5"):
        assert "arrays, for calibrate --grid or reconstruct" in run("info", tmp_path / name).stdout


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.zarr", "a.csv", "a.gif"])
def test_info_says_what_to_do_with_files_that_are_never_read(tmp_path, name):
    (tmp_path / name).mkdir() if name == "a.zarr" else (tmp_path / name).write_text("image")
    assert "such files are written, but not read: the .mdf file" in run("info", tmp_path / name, code=2).stderr


def test_info_counts_the_flags_of_a_reconstruction(path):
    images = np.ones((3, 4, 5), np.float32)
    images[0], images[1] = np.nan, 7
    grid = Grid.regular((4, 5), (0.04, 0.05))
    write_reconstruction(path, images, grid, acquisition())
    assert about(path)["largest value"] == "7"
    assert about(path)["flagged frames"] == "not stored"
    with h5py.File(path, "r+") as h5:
        h5["/reconstruction/_flags"] = np.array([1, 0, 10], np.uint8)
    assert about(path)["flagged frames"] == "bad: 1, clipped: 1, foreign: 1"
