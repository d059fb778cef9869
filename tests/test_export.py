"""An export gives a bundle that agrees with the network, or nothing."""

import importlib

import onnx
import pytest
import torch
import typer
from exported import checkpoint
from small_networks import CONFIGS, GRID
from typer.testing import CliRunner

from mpi_fast.bundle import PLANE, Bundle
from mpi_fast.errors import ModelError
from mpi_fast.export import artefacts
from mpi_fast.export.artefacts import random_cases
from mpi_fast.export.frame import Frame
from mpi_fast.export.parity import TOLERANCE, compared
from mpi_fast.export.torch_to_onnx import Graph
from mpi_fast.training.checkpoint import FORMAT, load_trained
from mpi_fast.training.recipes import RECIPES

command = importlib.import_module("mpi_fast.export.__main__")


def run(*given):
    app = typer.Typer()
    app.command()(command.export)
    return CliRunner().invoke(app, list(map(str, given)))


def test_a_network_that_differs_is_not_written(exported, tmp_path, monkeypatch):
    """The ONNX file of other weights simulates an error of the exporter."""
    monkeypatch.setattr(
        artefacts, "general_graph", lambda frame, name: Graph(onnx.load_from_string(exported.read(name)), 0)
    )
    other = checkpoint(tmp_path / "other.pt", std=0.051)
    with pytest.raises(ModelError, match=r"differs from the original: plane\.onnx: .*; no bundle was written"):
        command.make_bundle(other, tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["other.pt"]


def test_a_broken_checkpoint_leaves_nothing(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError):
        command.make_bundle(tmp_path / "model.pt", tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_opponents_are_exported_elsewhere(tmp_path):
    state = RECIPES["dernet"].build(CONFIGS["dernet"], GRID).state_dict()
    content = {
        "format": FORMAT,
        "method": "dernet",
        "grid": list(GRID),
        "network": CONFIGS["dernet"].to_dict(),
        "sigma_range": [0.02, 10.0],
        "state": {name: value.clone() for name, value in state.items()},
        "provenance": {},
    }
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"'dernet', expected 'posterior'; .* python -m mpi_fast\.export\.learned"):
        command.make_bundle(tmp_path / "model.pt", tmp_path / "bundle")


@pytest.mark.parametrize("wrong", [["--precision", "fp16"], ["--precision", "int8"], ["--json", "no/such/folder.json"]])
def test_options_that_make_no_sense(tmp_path, wrong):
    assert run(checkpoint(tmp_path / "model.pt"), *wrong).exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_the_bundled_model_is_its_checkpoint():
    """The committed checkpoint and the committed bundle contain the same network."""
    bundle = Bundle.open()
    trained = load_trained(bundle.checkpoint())
    assert trained.provenance == bundle.manifest["provenance"]
    report = compared(Frame(trained.network).eval(), PLANE, bundle.read(PLANE), random_cases(PLANE))
    assert max(one["relative"] for one in report) < TOLERANCE
    assert all(one["passed"] for one in report)


@pytest.mark.parametrize(("given", "output"), [([], "default"), (["-o", "OUT"], "OUT")])
def test_the_model_of_the_package_needs_no_file(tmp_path, monkeypatch, given, output):
    monkeypatch.chdir(tmp_path)
    asked = {}

    def made(checkpoint, output, **options):
        asked.update(checkpoint=checkpoint, output=output)
        return Bundle.open()

    monkeypatch.setattr(command, "make_bundle", made)
    assert run("default", *given).exit_code == 0
    assert asked["checkpoint"].resolve() == Bundle.open().checkpoint().resolve()
    assert str(asked["output"]) == output  # in the working folder, not in the package
