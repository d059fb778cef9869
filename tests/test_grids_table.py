"""bench/compare_grids.py: the table over grids, its means over planes, and the contents of its file."""

import io
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mpi_fast import comparison, experiment

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import compare_grids

FRAMES = "--snrs", "15", "--workers", "1", "--frames", "7", "--volumes", "3"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The files and the output of a run with two planes and a volume."""
    folder = tmp_path_factory.mktemp("grids")
    files = folder / "grids.json", folder / "grids.md"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "MATRIX_BYTES", 600 * 3 * 8 * 210)
        yield (*files, run("--grids", "8x8,12x11,5x6x7", "--methods", "tikhonov,l1,deq", files=files))
    for cache in (comparison.measured, comparison.frames, comparison._built):
        cache.cache_clear()


def run(*options, files):
    """Returns the output of a run."""
    arguments = *options, *FRAMES, "--json", str(files[0]), "--markdown", str(files[1])
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr("sys.argv", ["compare_grids.py", *arguments])
        patch.setattr(compare_grids, "DISPLAY", Console(file=err, width=200))
        compare_grids.main()
    return out.getvalue(), err.getvalue()


def test_every_grid_has_a_line_and_planes_a_mean(report):
    file, markdown, (printed, said) = report
    found, lines = json.loads(file.read_text()), markdown.read_text().splitlines()
    assert printed.splitlines() == lines
    assert said.count("deq left out: the network is for 19 x 19 voxels") == 3
    assert [one["grid"] for one in found] == [[8, 8], [12, 11], [5, 6, 7]]
    assert [one["frames"] for one in found] == [7, 7, 3]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines[2:6]]
    assert [row[1] for row in rows] == ["8 x 8", "12 x 11", "5 x 6 x 7", "**mean of 2 planes**"]
    for one, row in zip(found, rows[:3], strict=True):
        assert all(len(of_method["psnr"]) == one["frames"] for of_method in one["methods"].values())
        psnr = {name: np.mean(of_method["psnr"]) for name, of_method in one["methods"].items()}
        assert set(psnr) == {"tikhonov", "l1", "art", "posterior"}
        assert one["less_art"][0] == pytest.approx(psnr["posterior"] - psnr["art"])
        assert one["best_other"] == max(("tikhonov", "l1", "art"), key=psnr.get)
        assert one["less_best"][0] == pytest.approx(psnr["posterior"] - psnr[one["best_other"]])
        assert one["less_best"][1] <= one["less_best"][0] <= one["less_best"][2]
        assert ("ssim" in one["methods"]["art"]) == (one["grid"] == [12, 11])
        assert compare_grids.get(one["best_other"]).title in row[4]
        assert f"{psnr['posterior']:.1f}" in row[5]
    assert f"{np.mean([one['less_art'][0] for one in found[:2]]):+.1f}" == rows[3][6]
    assert lines[-1] == "Opponents: Tikhonov, L1, ART."


def test_a_run_adds_to_what_was_measured_on_the_same_frames(report, tmp_path):
    file, _, _ = report
    files = tmp_path / "more.json", tmp_path / "more.md"
    run("--grids", "8x8", "--methods", "nnls", "--onto", str(file), files=files)
    (before, *_), (after,) = (json.loads(path.read_text()) for path in (file, files[0]))
    assert set(after["methods"]) == {*before["methods"], "nnls"}
    same = {"cpu_ms": 0.0}
    for name, of_method in before["methods"].items():
        assert {**after["methods"][name], **same} == {**of_method, **same}
    assert files[1].read_text().splitlines()[-1] == "Opponents: Tikhonov, L1, ART, NNLS."


def test_other_frames_are_not_mixed_up(report):
    before = json.loads(report[0].read_text())
    setup = comparison.Setup(phantoms=7, grid=(8, 8), seed=1)
    assert compare_grids.added(setup, 15.0, {"art": {}}, before) == {"art": {}}
    assert set(compare_grids.added(comparison.Setup(phantoms=7, grid=(8, 8)), 15.0, {}, before)) == set(
        before[0]["methods"]
    )
