"""bench/sizes.py: sizes of the posterior network, trained alike and compared."""

import json

import sizes

from mpi_fast.training.mixture import Mixture


def test_sizes_are_trained_assessed_and_listed_by_their_operations(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sizes, "Mixture", lambda: Mixture(scanners=2, phantoms=28, planes=0, volumes=0))
    monkeypatch.setattr(sizes, "SNRS", (15.0,))
    report = tmp_path / "sizes.json"
    options = "--minutes", "0.02", "--device", "cpu", "--phantoms", "8", "--processes", "1", "--json", str(report)
    monkeypatch.setattr("sys.argv", ["sizes.py", "--sizes", "2,16,16", "1,8,8", *options])
    sizes.main()
    rows = json.loads(report.read_text())["sizes"]
    assert [row["size"] for row in rows] == [[2, 16, 16], [1, 8, 8]]
    assert rows[0]["flops"] > 2 * rows[1]["flops"] > 0
    assert all(row["steps"] > 0 for row in rows)
    assert all(5 < psnr[0] < 40 for row in rows for psnr in row["psnr"].values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[-2:]] == ["1, 8, 8", "2, 16, 16"]
