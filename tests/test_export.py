"""Export: any network of this kind becomes a bundle equal to it, or nothing."""

import importlib

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.errors import MismatchError, ModelError
from mpi_fast.preprocessing import RowFilter
from mpi_fast.simulation import Scanner
from mpi_fast.training.checkpoint import FORMAT, Checkpoint, load_checkpoint
from mpi_fast.training.network import NetworkConfig, ScoreNetwork

command = importlib.import_module("mpi_fast.export.__main__")
parity = importlib.import_module("mpi_fast.export.parity")
CONFIG = NetworkConfig(features=16, encoder_width=32, encoder_inner=16, encoder_blocks=1, width=16, inner=32, blocks=1)


def random_checkpoint(path, grid):
    torch.manual_seed(0)
    network = ScoreNetwork(CONFIG)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.05)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    content = {"format": FORMAT, "grid": list(grid), "network": CONFIG.to_dict(), "sigma_range": [0.02, 10.0]}
    torch.save({**content, "state": state, "provenance": {"made": "by a test"}}, path)
    return path


def test_another_network_on_another_grid(tmp_path):
    checkpoint = random_checkpoint(tmp_path / "model.pt", (26, 13))
    bundle = command.make_bundle(checkpoint, tmp_path / "bundle", steps=2, samples=2, consensus=2)
    report = bundle.manifest["parity"]
    assert bundle.grid == (26, 13)
    assert bundle.manifest["provenance"] == {"made": "by a test"}
    assert [row["artefact"] for row in report] == 3 * ["score.onnx"] + ["reconstruct.onnx"]
    assert all(row["passed"] for row in report)
    assert max(row["relative"] for row in report) < 1e-4
    assert b"/home" not in bundle.read("score.onnx")
    assert str(tmp_path).encode() not in bundle.read("score.onnx")


def test_a_network_that_differs_is_not_written(tmp_path, monkeypatch):
    """The ONNX file of other weights stands in for an exporter that went wrong."""
    checkpoint = random_checkpoint(tmp_path / "model.pt", (6, 7))
    artefacts = importlib.import_module("mpi_fast.export.artefacts")
    score_onnx = artefacts.score_onnx

    def other_weights(given):
        network = ScoreNetwork(CONFIG)
        network.load_state_dict(given.network.state_dict())
        with torch.no_grad():
            network.denoiser.head.weight *= 1.01
        return score_onnx(Checkpoint(network.eval(), given.grid, given.sigma_range, {}))

    monkeypatch.setattr(artefacts, "score_onnx", other_weights)
    with pytest.raises(ModelError, match="not the original"):
        command.make_bundle(checkpoint, tmp_path / "bundle", steps=1, samples=1, consensus=0)
    assert not (tmp_path / "bundle").exists()


def test_a_broken_checkpoint_leaves_nothing(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(ModelError):
        command.make_bundle(tmp_path / "model.pt", tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize("wrong", [["--precision", "fp16"], ["--precision", "int8"], ["--json", "no/such/folder.json"]])
def test_options_that_make_no_sense(tmp_path, wrong):
    checkpoint = random_checkpoint(tmp_path / "model.pt", (6, 7))
    app = typer.Typer()
    app.command()(command.export)
    assert CliRunner().invoke(app, [str(checkpoint), *wrong]).exit_code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def test_a_calibration_of_another_grid_is_refused(tmp_path):
    scanner = Scanner(grid=(8, 9), sub_voxels=1)
    rows = RowFilter(max_frequency=3e5)
    matrix = scanner.system_matrix()
    Calibration.from_arrays(matrix, scanner.frequencies, (8, 9), (0.016, 0.018), rows=rows).save(tmp_path / "c.h5")
    checkpoint = random_checkpoint(tmp_path / "model.pt", (6, 7))
    with pytest.raises(MismatchError, match=r"c\.h5"):
        command.make_bundle(checkpoint, tmp_path / "bundle", calibration_file=tmp_path / "c.h5")


def test_the_bundled_model_is_its_checkpoint():
    """The committed model.pt and the committed bundle are one network."""
    bundle = Bundle.open()
    checkpoint = load_checkpoint(bundle.path.parent / "model.pt")
    assert checkpoint.provenance == bundle.manifest["provenance"]
    report = parity.compare(checkpoint, bundle)
    assert max(one.relative for one in report) < 1e-4
    assert np.isfinite([one.relative for one in report]).all()


def test_a_model_of_the_package_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {}

    def made(checkpoint, output, **options):
        asked.update(checkpoint=checkpoint, output=output)
        return Bundle.open("default")

    monkeypatch.setattr(command, "make_bundle", made)
    app = typer.Typer()
    app.command()(command.export)
    assert CliRunner().invoke(app, ["default"]).exit_code == 0
    assert asked["checkpoint"].resolve() == Bundle.open("default").checkpoint().resolve()
    assert str(asked["output"]) == "default"  # in the working folder, not in the package
