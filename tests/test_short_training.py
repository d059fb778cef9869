"""bench/short_training.py trains networks of several kinds equally and compares them."""

import json
import sys
from pathlib import Path

import pytest
import torch

from mpi_fast.training.combination import Signals
from mpi_fast.training.mixture import Mixture, make_settings
from mpi_fast.training.network import Corrector, PosteriorConfig, PosteriorNetwork

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import short_training

TINY = PosteriorConfig(2, 8)
FEW = Mixture(scanners=2, phantoms=28, planes=1, volumes=0, each=1, drawn=28)


@pytest.fixture(scope="module")
def settings():
    return make_settings(FEW, 0)


def test_networks_are_trained_assessed_and_listed(tmp_path, monkeypatch, capsys, settings):
    monkeypatch.setattr(short_training, "make_settings", lambda *arguments: settings)
    monkeypatch.setattr(short_training, "SNRS", (15.0,))
    kind = short_training.Variant("on one grid", TINY, learned_from=short_training.standard_grid_only)
    monkeypatch.setitem(short_training.KINDS, "one-grid", kind)
    files = tmp_path / "networks.json", tmp_path / "networks.md"
    options = "--minutes", "0.02", "--device", "cpu", "--phantoms", "8", "--json", str(files[0])
    named = "--markdown", str(files[1]), "--sizes", "2,16", "1,8", "--kinds", "one-grid"
    monkeypatch.setattr("sys.argv", ["short_training.py", *options, *named])
    short_training.main()
    rows = json.loads(files[0].read_text())["networks"]
    names = ["2 blocks, 16 wide", "1 blocks, 8 wide", "on one grid"]
    assert [row["name"] for row in rows] == names
    assert rows[0]["flops"] > 2 * rows[1]["flops"] > 0
    assert all(row["steps"] > 0 for row in rows)
    assert all(list(row["psnr"]) == ["in", "fine", "out", "26 x 13"] for row in rows)
    assert all(5 < psnr[0] < 40 for row in rows for psnr in row["psnr"].values())
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[-3:]] == names
    assert files[1].read_text().splitlines() == lines


def test_kinds_differ_from_the_usual_one_in_what_they_say(settings):
    kinds = short_training.KINDS
    assert kinds["half-blocks"].config.blocks == kinds["usual"].config.blocks // 2
    assert kinds["coarse"].config.coarse_every == 3
    assert len(settings) == 2
    assert kinds["one-grid"].learned_from(settings) == settings[:1]
    assert settings[0].grid == (1, 19, 19)
    assert all(kind.learned_from(settings) == settings for name, kind in kinds.items() if name != "one-grid")


def test_features_are_kept_apart_for_the_time_of_a_run():
    network = PosteriorNetwork(TINY).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    rng = torch.Generator().manual_seed(0)
    y, basis = torch.randn(1, 1, 4, generator=rng), torch.randn(1, 36, 4, generator=rng)
    signals = Signals.of(y, torch.ones(1, 1), torch.ones(1, 4), basis)
    before = Corrector.forward
    with torch.inference_mode():
        usual = network(signals, (1, 6, 6)).image
        with short_training.KINDS["no-features"].change():
            apart = network(signals, (1, 6, 6)).image
        again = network(signals, (1, 6, 6)).image
    assert not torch.allclose(usual, apart)
    torch.testing.assert_close(usual, again)
    assert Corrector.forward is before
