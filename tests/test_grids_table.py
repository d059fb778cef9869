"""bench/grids.py: the table over grids, its means over planes, and what the file of it holds."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from mpi_fast import comparison, experiment

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import grids


@pytest.fixture
def results(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "MATRIX_BYTES", 600 * 3 * 8 * 210)
    report, markdown = tmp_path / "grids.json", tmp_path / "grids.md"
    options = "--grids", "8x8,12x11,5x6x7", "--methods", "tikhonov,l1,fast", "--snrs", "15", "--workers", "1"
    files = "--frames", "7", "--volumes", "3", "--json", str(report), "--markdown", str(markdown)
    monkeypatch.setattr("sys.argv", ["grids.py", *options, *files])
    grids.main()
    yield json.loads(report.read_text()), markdown.read_text().splitlines(), capsys.readouterr()
    for cache in (comparison.measured, comparison.frames, comparison._built):
        cache.cache_clear()


def test_every_grid_has_a_line_and_planes_a_mean(results):
    found, lines, printed = results
    assert printed.out.splitlines() == lines
    assert "fast left out" in printed.err
    assert [one["grid"] for one in found] == [[8, 8], [12, 11], [5, 6, 7]]
    assert [one["frames"] for one in found] == [7, 7, 3]
    first = [line.split("|")[1].strip() for line in lines[2:]]
    assert first == ["8 x 8", "12 x 11", "5 x 6 x 7", "**mean of 2 planes**"]
    for one in found:
        psnr = {name: of_method["psnr"] for name, of_method in one["methods"].items()}
        assert set(psnr) == {"tikhonov", "l1", "art", "posterior"}
        assert one["less_art"][0] == pytest.approx(psnr["posterior"] - psnr["art"])
        assert one["best_other"] == max(("tikhonov", "l1", "art"), key=psnr.get)
        assert one["less_best"][0] == pytest.approx(psnr["posterior"] - psnr[one["best_other"]])
        assert one["less_best"][1] <= one["less_best"][0] <= one["less_best"][2]
        assert ("ssim" in one["methods"]["art"]) == (one["grid"] == [12, 11])
    mean = np.mean([one["less_art"][0] for one in found[:2]])
    assert f"{mean:+.1f}" in lines[-1]
