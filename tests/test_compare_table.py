"""bench/compare_table.py makes the documentation's table from the output of `mpi-fast compare --json`."""

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mpi_fast.cli import app
from mpi_fast.methods import get

sys.path.append(str(Path(__file__).parents[1] / "bench"))

import compare_table


@pytest.mark.parametrize(("grid", "merits"), [("19x19", ["psnr", "ssim"]), ("9x8", ["psnr"])])
def test_every_method_has_a_line_and_ours_is_measured_by_the_best_opponent(grid, merits, tmp_path, monkeypatch, capsys):
    report, markdown = tmp_path / "compare.json", tmp_path / "compare.md"
    options = "--snr", "15,25", "--methods", "tikhonov,nnls,posterior", "--phantoms", "7", "--workers", "1"
    result = CliRunner().invoke(app, ["compare", "--grid", grid, *options, "--json", str(report)])
    assert result.exit_code == 0, result.output
    monkeypatch.setattr("sys.argv", ["compare_table.py", str(report), "--markdown", str(markdown)])
    compare_table.main()
    lines = markdown.read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    content = json.loads(report.read_text())
    found = {(one["method"], one["snr_db"]): one["merits"] for one in content["results"]}
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    assert cells[0][0] == " / ".join(merit.upper() for merit in merits)
    assert cells[0][1:3] == ["15 dB", "25 dB"]
    assert [row[0] for row in cells[2:4]] == [get("tikhonov").title, get("nnls").title]
    assert cells[4][0] == f"**{get('posterior').title}**"
    assert cells[4][2].split(" / ")[0] == f"**{found['posterior', 25.0]['psnr']['mean']:.1f}**"
    assert cells[2][1].split(" / ")[0] == f"{found['tikhonov', 15.0]['psnr']['mean']:.1f}"
    duel = content["duels"]["psnr"][0]
    assert cells[5][0] == "PSNR, gain over the best opponent, dB"
    assert cells[5][1].startswith(f"{duel['difference']:+.1f} [")
    assert cells[5][1].endswith(get(duel["opponent"]).title)
    assert len(cells) == 5 + len(merits) + 1
    assert cells[-1][0].endswith("coverage of 50, 80, 95 % intervals, %")
    held = found["posterior", 15.0]
    assert cells[-1][1] == " / ".join(f"{100 * held[f'coverage_{level}']['mean']:.0f}" for level in (50, 80, 95))
