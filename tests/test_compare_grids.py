"""The comparison on grids other than 19 x 19: scanners, figures of merit, and methods that are left out."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from mpi_fast import comparison, experiment, heldout
from mpi_fast.cli import app
from mpi_fast.comparison import Setup, compare, frames, measured, refused
from mpi_fast.errors import InputError, MismatchError, ModelError
from mpi_fast.metrics import psnr

VOLUME = 5, 6, 7


@pytest.fixture
def small(monkeypatch):
    """Volumes with only 600 frequencies, because a complete matrix would take longer than the comparison."""
    monkeypatch.setattr(experiment, "MATRIX_BYTES", 600 * 3 * 8 * int(np.prod(VOLUME)))
    yield
    for cache in (measured, frames, comparison._built):  # they contain measurements of another test
        cache.cache_clear()


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments), "--phantoms", "7", "--workers", "1"])


# -- scanners ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "truth", "foreground", "background"),
    [
        (0, 0.41663635, 0.43754474, 0.030450876),
        (1, 0.33938395, 0.39226798, 0.061877702),
        (2, 0.32999179, 0.56253681, 0.14673627),
    ],
)
def test_the_scanners_of_published_figures_stay_as_they_are(index, truth, foreground, background):
    scanner = heldout.SCANNERS[index]
    assert scanner.on(scanner.scanner.grid) is scanner
    matrix = scanner.measure_matrix()
    norms = [np.linalg.norm(part.astype(complex)) for part in (matrix.truth, matrix.foreground, matrix.background)]
    np.testing.assert_allclose(norms, (truth, foreground, background), rtol=1e-6)


def test_frames_of_published_figures_stay_as_they_are():
    setup = Setup(phantoms=14)
    assert setup.heldout is heldout.SCANNERS[0]
    _, truth = frames(setup, 15.0)
    np.testing.assert_array_equal(truth, heldout.phantoms(14, [0, 0]))
    assert truth.sum(dtype=float) == pytest.approx(113.29995852, rel=1e-6)


@pytest.mark.parametrize("grid", [(8, 8), (26, 13)])
def test_another_grid_divides_the_same_field_of_view(grid):
    own, other = heldout.SCANNERS[1].scanner, heldout.SCANNERS[1].on(grid).scanner
    np.testing.assert_allclose(other.field_of_view, own.field_of_view)
    assert other.grid == grid
    assert (other.gradient, other.drive_amplitude, other.receive) == (own.gradient, own.drive_amplitude, own.receive)
    _, calibration = measured(heldout.SCANNERS[1].on(grid))
    assert calibration.grid == grid
    assert 500 < calibration.num_rows < 800


def test_phantoms_have_the_shape_of_the_voxels():
    setup = Setup(grid=(26, 13), phantoms=7)
    np.testing.assert_array_equal(frames(setup, 20.0)[1], heldout.phantoms(7, [0, 0], (26, 13), 0.5))


def test_the_trajectory_covers_the_middle_of_a_volume():
    scanner = heldout.VOLUME.scanner
    covered = Setup(grid=(19, 19, 19)).covered()
    for axis, name in enumerate("zyx"):
        reach = scanner.drive_amplitude["xyz".index(name)] / abs(scanner.gradient["xyz".index(name)])
        places = (np.arange(19) - 9) * scanner.voxel_size[axis]
        line = covered[tuple(slice(None) if a == axis else 9 for a in range(3))]
        np.testing.assert_array_equal(line, np.abs(places) <= reach)
    assert covered.sum() == np.prod([covered[:, 9, 9].sum(), covered[9, :, 9].sum(), covered[9, 9].sum()])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"grid": (19,)}, "grid"),
        ({"grid": (1, 8)}, "at least two"),
        ({"grid": (8, 8, 8), "scanner": "out"}, "scanner of volumes 'out': expected one of in"),
    ],
)
def test_setups_that_there_are_not(wrong, message):
    with pytest.raises(InputError, match=message):
        Setup(**wrong)
    with pytest.raises(InputError, match="expected 2 positive numbers"):
        heldout.SCANNERS[0].on((8, 8, 8))


# -- methods ----------------------------------------------------------------------------------------------------------


def test_networks_of_another_grid_are_left_out():
    setup = Setup(grid=(8, 8), phantoms=7)
    reasons = refused(setup, ["art", "posterior", "samples", "plug-and-play", "dernet", "deq"])
    assert set(reasons) == {"dernet", "deq"}
    assert set(reasons.values()) == {"the network is for 19 x 19 voxels, not 8 x 8"}
    with pytest.raises(MismatchError, match="method 'deq': the network is for"):
        compare(setup, ["art", "deq"], [20.0])
    assert not refused(Setup(phantoms=7), ["art", "posterior", "plug-and-play", "dernet", "deq"])


def test_a_bundle_that_is_none_is_refused_before_time_is_spent(tmp_path):
    setup = Setup(phantoms=7, model=str(tmp_path))
    assert not refused(setup, ["art", "tikhonov"])
    with pytest.raises(ModelError, match="not a model bundle"):
        refused(setup, ["art", "posterior"])


def test_ssim_needs_its_window():
    assert "ssim" not in Setup(grid=(8, 30)).merits
    assert "ssim" not in Setup(grid=VOLUME).merits
    assert Setup(grid=(11, 30)).merits == comparison.MERITS


def test_every_classical_method_is_tuned_on_a_volume(small):
    methods = "art", "tikhonov", "nnls", "l1", "tv", "nonconvex"
    setup = Setup(grid=VOLUME, phantoms=3)
    assert setup.validation == len(heldout.VOLUMES)
    outcomes = compare(setup, methods, [20.0])
    truth = frames(setup, 20.0)[1]
    nothing = psnr(0 * truth, truth).mean()
    for (method, _), one in outcomes.items():
        assert one.image.shape == (3, *VOLUME)
        assert set(one.merits) == set(setup.merits), method
        assert one.merits["psnr"].mean() > nothing + 3, method
        assert one.tuned.parameters


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_leaves_out(tmp_path):
    outputs = tmp_path / "figure.png", tmp_path / "all.json"
    options = "--grid", "9x12", "--snr", 15, 25, "--methods", "tikhonov,deq,posterior,dernet"
    result = run(*options, "-o", outputs[0], "--json", outputs[1])
    assert result.exit_code == 0, result.output
    assert "left out: deq, dernet: the network is for 19 x 19 voxels, not 9 x 12" in " ".join(result.stderr.split())
    assert "9 x 12 voxels" in " ".join(result.stdout.split())
    assert "SSIM: none, the grid is narrower than its window" in " ".join(result.stdout.split())
    content = json.loads(outputs[1].read_text())
    assert content["setup"]["grid"] == [9, 12]
    assert list(content["duels"]) == ["psnr"]
    assert [one["ours"] for one in content["duels"]["psnr"]] == ["posterior"] * 2
    assert outputs[0].stat().st_size > 10_000


def test_the_command_compares_on_volumes(small, tmp_path):
    result = run("--grid", "5x6x7", "--snr", 20, "--methods", "tikhonov,posterior", "-o", tmp_path / "figure.png")
    assert result.exit_code == 0, result.output
    assert "volume" in result.stdout
    assert "5 x 6 x 7 voxels" in " ".join(result.stdout.split())
    assert (tmp_path / "figure.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--grid", "8"), "--grid 8: expected rows x columns"),
        (("--grid", "8x8x8", "--scanner", "fine"), "scanner of volumes 'fine'"),
        (("--grid", "8x8", "--methods", "deq"), "no method is left for a grid of 8 x 8 voxels"),
    ],
)
def test_bad_grids_give_one_line(options, message):
    result = run(*options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert result.stderr.count("error:") == 1
