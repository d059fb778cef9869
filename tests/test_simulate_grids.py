"""``mpi-fast simulate`` on any grid: its files contain the requested scanner and phantoms."""

import json

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from mpi_fast import experiment
from mpi_fast.calibration import Calibration
from mpi_fast.cli import app
from mpi_fast.mdf import MeasurementFile, SystemMatrixFile, read_reconstruction


def simulate(folder, *options):
    result = CliRunner().invoke(app, ["simulate", str(folder), *map(str, options), "--json", str(folder / "s.json")])
    assert result.exit_code == 0, result.output
    return json.loads((folder / "s.json").read_text())


def rows_of(calibration, path):
    """Rows of the frames minus the mean background, and whether the file contains spectra."""
    with MeasurementFile(path) as file, h5py.File(path) as raw:
        frames = np.concatenate(list(file.frames())) - file.background_mean()
        spectra = bool(raw["/measurement/isFourierTransformed"][()])
        return frames[:, calibration.selection[:, file.frequency_index]], spectra


@pytest.mark.parametrize(
    ("grid", "options", "field_of_view"),
    [
        ((8, 8), (), (38e-3, 38e-3)),
        ((26, 13), ("--phantoms", "tumours,bars"), (38e-3, 38e-3)),
        ((7, 12), ("--field-of-view", "30,20", "--spectra"), (20e-3, 30e-3)),
        ((5, 4, 3), ("--voxel", "8,6,3", "--gradient", "-1.2", "--drive", "12,11,10"), (15e-3, 24e-3, 24e-3)),
        ((4, 7, 6), ("--gradient", "-1,-0.8,1.8"), (19e-3, 38e-3, 38e-3)),
    ],
)
def test_files_hold_the_scanner_and_its_phantoms(grid, options, field_of_view, tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "MATRIX_BYTES", 900 * 3 * 8 * int(np.prod(grid)))  # 900 of a volume's frequencies
    shape = "x".join(map(str, grid))
    said = simulate(tmp_path, "--grid", shape, "--frames", 3, "--snr", 40, "--calibration-snr", 40, *options)
    assert said["grid"].startswith(" x ".join(map(str, grid)) + " voxels")
    calibration = Calibration.from_mdf(tmp_path / "system-matrix.mdf")
    assert calibration.grid == grid
    np.testing.assert_allclose(calibration.field_of_view, field_of_view)
    truth = read_reconstruction(tmp_path / "truth.mdf")
    assert truth.shape == (3, *grid)
    assert truth.reshape(3, -1).max(axis=1).min() > 0.02
    rows, spectra = rows_of(calibration, tmp_path / "measurement.mdf")
    assert spectra == (len(grid) == 3 or "--spectra" in options)
    expected = truth.reshape(3, -1) @ calibration.matrix.T
    assert np.linalg.norm(rows - expected) < 0.1 * np.linalg.norm(expected)
    with SystemMatrixFile(tmp_path / "system-matrix.mdf") as file:
        assert len(file.frequency_index) == (900 if len(grid) == 3 else 817)
        gradient = np.diag(file.acquisition.gradient.reshape(3, 3))
    if "--gradient" in options:
        given = [float(value) for value in options[options.index("--gradient") + 1].split(",")]
        np.testing.assert_allclose(gradient, given if len(given) == 3 else (given[0], given[0], -2 * given[0]))


def test_the_default_phantoms_are_those_that_training_never_sees(tmp_path):
    for seed, name in ((0, "a"), (0, "b"), (1, "c")):
        (tmp_path / name).mkdir()
        simulate(tmp_path / name, "--grid", "12x12", "--frames", 7, "--seed", seed)
    first, again, other = (read_reconstruction(tmp_path / name / "truth.mdf") for name in "abc")
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.reshape(7, -1).max() <= 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--grid", "8x8", "--voxel", "2", "--field-of-view", "38"), "expected one"),
        (("--grid", "8x8", "--field-of-view", "38,38,19"), "two for x and y"),
        (("--grid", "4x4x4", "--drive", "12,12"), "three for x, y and z"),
        (("--grid", "4x4x4", "--field-of-view", "0"), "voxel_size"),
        (("--grid", "4x4x4", "--phantoms", "letters"), "letters"),
        (("--grid", "4x4x4x4"), "planes x rows x columns"),
    ],
)
def test_what_fits_no_grid_gives_one_line(options, message, tmp_path):
    result = CliRunner().invoke(app, ["simulate", str(tmp_path), "--frames", "1", *options])
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
