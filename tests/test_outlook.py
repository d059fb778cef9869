"""The limits of a calibration on the command line."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from mpi_fast.calibration import Calibration
from mpi_fast.cli import app
from mpi_fast.cli.outlook import Outlook, _blocks
from mpi_fast.errors import ModelError
from mpi_fast.experiment import measure_matrix
from mpi_fast.heldout import SCANNERS
from mpi_fast.preprocessing import RowFilter
from mpi_fast.resolution import resolution
from mpi_fast.simulation import Scanner


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outlook")
    SCANNERS[0].on((13, 12)).measure_matrix().calibrate().save(folder / "plane.h5")
    scanner = Scanner.volume(grid=(5, 6, 7), voxel_size=(3.8e-3, 6.3e-3, 5.4e-3), dividers=(16, 15, 12), sub_voxels=1)
    measure_matrix(scanner, 30.0, np.random.default_rng(0)).calibrate(RowFilter(2.0)).save(folder / "volume.h5")
    return folder


def test_info_shows_what_a_plane_resolves_and_promises(saved, tmp_path):
    path, json_file, png = saved / "plane.h5", tmp_path / "info.json", tmp_path / "map.png"
    shown = run("info", path, "--json", json_file, "--png", png).stdout
    facts = json.loads(json_file.read_text())[str(path)]
    expected = resolution(Calibration.load(path), 25.0)
    assert f"{expected.effective_rank:.0f} of 156" in shown
    assert "resolution at 25 dB, in %" in shown
    assert "y \\ x / mm" in shown
    assert "PSNR of 21 simulated phantoms" in " ".join(shown.split())  # below a table, wrapped to its width
    assert [one["snr_db"] for one in facts["limits"]] == [15.0, 25.0, 35.0]
    assert facts["limits"][1]["effective_rank"] == pytest.approx(expected.effective_rank)
    assert facts["limits"][1]["cell_mm"] == pytest.approx([1e3 * size for size in expected.cell_size])
    quality = [one["psnr_db"] for one in facts["limits"]]
    assert all(f"{value:.1f} (" in shown for value in quality)
    assert quality == sorted(quality)
    assert facts["resolution map"]["axes"] == "yx"
    np.testing.assert_allclose(facts["resolution map"]["diagonal"], expected.diagonal)
    assert png.stat().st_size > 5000
    assert facts["rank R"] == len(Calibration.load(path).singular_values)


def test_info_shows_three_slices_of_a_volume(saved, tmp_path):
    path, json_file = saved / "volume.h5", tmp_path / "info.json"
    shown = run("info", path, "--no-quality", "--json", json_file, "--png", tmp_path / "map.png").stdout
    assert "5 x 6 x 7 voxels, 19 x 37.8 x 37.8 mm" in shown
    assert "of 210" in shown
    places = "z = 0 mm", "y = 3.15 mm", "x = 0 mm"  # the fourth of six voxels
    assert all(f"resolution at 25 dB, {place}, in %" in shown for place in places)
    assert all(axes in shown for axes in ("y \\ x / mm", "z \\ x / mm", "z \\ y / mm"))
    assert "PSNR" not in shown
    facts = json.loads(json_file.read_text())[str(path)]
    assert np.shape(facts["resolution map"]["diagonal"]) == (5, 6, 7)
    assert "psnr_db" not in facts["limits"][0]


def test_numbers_on_the_screen_are_means_where_a_picture_has_them(saved):
    """The first line is the largest y, the first column the smallest x."""
    calibration = Calibration.load(saved / "plane.h5")
    found = Outlook.of(calibration, quality=False)
    *_, table = found.tables("plane")
    cells = [list(column.cells) for column in table.columns]
    diagonal = 100 * found.mapped.diagonal
    assert cells[0][0] == "16.1"
    assert cells[0][-1] == "-16.1"
    assert table.columns[1].header == "-15.8"
    assert cells[1][0] == f"{diagonal[11:, :2].mean():.0f}"
    assert cells[-1][-1] == f"{diagonal[:2, 10:].mean():.0f}"


@pytest.mark.parametrize("count", [*range(1, 30), 128])
def test_blocks_are_alike_from_both_ends(count):
    sizes = [len(block) for block in _blocks(count)]
    assert sum(sizes) == count
    assert len(sizes) == min(count, 9)
    assert min(sizes) >= 1
    assert sizes == sizes[::-1]


def test_a_picture_is_of_one_calibration(saved, tmp_path):
    several = saved / "plane.h5", saved / "volume.h5"
    said = run("info", *several, "--no-quality", "--png", tmp_path / "map.png", code=2).stderr
    assert "2 are among these files" in said
    assert "0 are among" in run("info", "--png", tmp_path / "map.png", code=2).stderr
    assert "must end in" in run("info", saved / "plane.h5", "--png", tmp_path / "map.txt", code=2).stderr
    assert not list(tmp_path.iterdir())


def test_info_says_why_it_promises_nothing(saved, monkeypatch):
    def refuse(*arguments, **options):
        raise ModelError("no model here")
        yield

    monkeypatch.setattr("mpi_fast.forecast.forecast", refuse)
    result = run("info", saved / "plane.h5")
    assert "note: the quality of images is not known: no model here" in result.stderr
    assert "PSNR" not in result.stdout


@pytest.mark.parametrize(("count", "fine"), [(20, False), (64, True)])
def test_calibrate_warns_of_a_grid_that_is_far_finer_than_what_is_measured(tmp_path, count, fine):
    """Nine by nine smooth functions, on few and on many voxels."""
    x = (np.arange(count) + 0.5) / count
    wave = np.cos(np.pi * np.arange(9)[:, None] * x)
    np.save(tmp_path / "S.npy", np.kron(wave, wave) + 0j)
    said = run("calibrate", tmp_path / "S.npy", "--grid", f"{count}x{count}", "--field-of-view", "40").stderr
    assert ("64 x 64 voxels are far finer than what is measured" in said) == fine
    assert len(said.splitlines()) == 1 + fine  # another line reports missing background frames


def test_rows_without_noise_resolve_what_they_hold():
    calibration = Calibration.from_arrays(
        np.eye(16)[None] + 0j, None, (4, 4), (0.1, 0.1), rows=RowFilter(snr_threshold=0)
    )
    assert Outlook.of(calibration, quality=False).mapped.cell == pytest.approx(1, abs=0.1)
