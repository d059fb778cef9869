"""The Triton repository of an export, and what a second export keeps of a bundle."""

import importlib
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import typer
from exported import EVERYTHING, FROZEN_GRID, checkpoint, measured, planes, relative
from google.protobuf import text_format
from typer.testing import CliRunner

from mpi_fast import constants
from mpi_fast.bundle import FROZEN, PLANE, VOLUME, Bundle, write_bundle
from mpi_fast.cli import app
from mpi_fast.errors import InputError, ModelError
from mpi_fast.export import artefacts, triton
from mpi_fast.export.torch_to_onnx import Graph
from mpi_fast.frozen import frozen_for
from mpi_fast.pipelines.graph import PosteriorGraph
from mpi_fast.reconstructor import Reconstructor

command = importlib.import_module("mpi_fast.export.__main__")


def copy_of(bundle, folder):
    """The bundle with its checkpoint beside it, to be changed."""
    shutil.copy(bundle.checkpoint(), folder)
    shutil.copytree(bundle.path, folder / "small")
    return Bundle.open(folder / "small")


def test_info_tells_of_all_of_it(exported, tmp_path):
    result = CliRunner().invoke(app, ["info", str(exported.path), "--json", str(tmp_path / "info.json")])
    assert result.exit_code == 0, result.output
    told = json.loads((tmp_path / "info.json").read_text())[str(exported.path)]
    facts = exported.manifest["frozen"][0]
    of = f"scanner.h5: {facts['rows']} rows, rank {facts['rank']}"
    assert told["precision"] == "fp32, fp16"
    assert told["frozen for one scanner"] == f"frozen.onnx, {of}\nfrozen.fp16.onnx, {of}"
    assert {f"difference from its checkpoint: {name}" for name in EVERYTHING} <= told.keys()
    assert "dB PSNR" in told["difference from its checkpoint: plane.fp16.onnx"]


def triton_definition():
    """Triton's protobuf definition, without the rest of tritonclient, which needs an older protobuf than onnx."""
    found = importlib.util.find_spec("tritonclient")
    if found is None:
        pytest.skip("pip install --no-deps tritonclient")
    file = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_triton_repository_runs_as_its_config_says(exported):
    """The config is parsed by Triton's own definition; Triton puts the batch axis before its dims."""
    model_config_pb2 = triton_definition()
    folder = exported.path.parent / "repository" / "mpi_fast"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.name == folder.name
    assert config.backend == "onnxruntime"
    assert [warm.batch_size for warm in config.model_warmup] == [1, 8, 32]
    session = onnxruntime.InferenceSession(folder / "1" / config.default_model_filename)
    calibration, rows, _ = measured(FROZEN_GRID)
    rows = np.tile(rows, (22, 1))[: config.max_batch_size]
    for given in config.input:
        assert given.data_type == model_config_pb2.TYPE_FP32
        assert planes(rows)[given.name].shape == (config.max_batch_size, *given.dims)
    names = [one.name for one in config.output]
    assert names == ["image", "std", "quantiles", "snr_db", "noise_floor"]
    found = dict(zip(names, session.run(names, planes(rows)), strict=True))
    for one in config.output:
        dims = one.reshape.shape if one.HasField("reshape") else one.dims
        assert found[one.name].shape == (config.max_batch_size, *dims)
    expected = PosteriorGraph(calibration, exported)(rows)
    assert relative(found["image"].reshape(len(rows), -1), expected.image) < 1e-4


def test_a_folder_of_something_else_is_not_replaced(exported, tmp_path):
    (tmp_path / "repository" / "mpi_fast").mkdir(parents=True)
    kept = tmp_path / "repository" / "mpi_fast" / "thesis.txt"
    kept.write_text("years of work")
    model = onnx.load_from_string(exported.read(FROZEN))
    with pytest.raises(InputError, match="not replaced"):
        triton.write_repository(tmp_path / "repository", model, b"")
    with pytest.raises(InputError, match="no such folder"):
        triton.write_repository(tmp_path / "no" / "repository", model, b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["repository", "mpi_fast", "thesis.txt"]


def run(*given):
    exporting = typer.Typer()
    exporting.command()(command.export)
    return CliRunner().invoke(exporting, list(map(str, given)))


def test_adding_a_scanner_to_a_bundle_drops_nothing_else(exported, tmp_path):
    """Only the new graph is made. The other files and their entries in the manifest stay."""
    bundle = copy_of(exported, tmp_path)
    measured((8, 8))[0].save(tmp_path / "other.h5")
    result = run(bundle.path, "--calibration", tmp_path / "other.h5")
    assert result.exit_code == 0, result.output
    now = Bundle.open(bundle.path)
    general = {name for name in EVERYTHING if "frozen" not in name}
    assert now.manifest["files"].keys() == general | {FROZEN}  # float16 of another scanner would be a wrong image
    assert all(now.manifest["files"][name] == bundle.manifest["files"][name] for name in general)
    assert now.manifest["statistics"].keys() == general | {FROZEN}
    assert {row["artefact"] for row in now.manifest["parity"]} == general | {FROZEN}
    assert [one["source"] for one in now.manifest["frozen"]] == ["other.h5"]
    assert frozen_for(now, measured((8, 8))[0], "fp16") == FROZEN


@pytest.fixture
def untraced(exported, monkeypatch):
    """Take the graphs for every calibration from an export of the same weights, because tracing takes a minute."""

    def known(_, name):
        return Graph(onnx.load_from_string(exported.read(name)), exported.manifest["statistics"][name]["nodes_before"])

    monkeypatch.setattr(artefacts, "general_graph", known)


@pytest.mark.usefixtures("untraced")
def test_exporting_again_keeps_what_is_not_made_anew(exported, tmp_path):
    bundle = copy_of(exported, tmp_path)
    again = command.make_bundle(tmp_path / "small.pt", bundle.path)
    assert again.manifest["files"] == bundle.manifest["files"]
    assert again.manifest["frozen"] == bundle.manifest["frozen"]
    assert sorted(map(str, again.manifest["parity"])) == sorted(map(str, bundle.manifest["parity"]))
    another = checkpoint(tmp_path / "small.pt", made="by another training")
    assert command.make_bundle(another, bundle.path).manifest["files"].keys() == {PLANE, VOLUME}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ([], "a bundle: expected --calibration"),
        (["-o", "elsewhere", "--precision", "fp32,fp16"], "is added to"),
        (["--precision", "fp16"], "expected fp32 or fp32,fp16"),
        (["--triton", "repository"], "it needs --calibration"),
    ],
)
def test_options_that_make_no_sense(exported, wrong, said, capfd):
    before = sorted(exported.path.iterdir())
    result = run(exported.path, *wrong)
    assert result.exit_code == 2
    assert said in " ".join((result.output + capfd.readouterr().err).split())
    assert sorted(exported.path.iterdir()) == before


def test_graphs_made_with_other_constants_are_refused_in_one_line(exported, tmp_path, monkeypatch):
    bundle = copy_of(exported, tmp_path)
    assert bundle.manifest["constants"] == constants.constants()
    monkeypatch.setattr("mpi_fast.likelihood.EMPTY", 6.0)
    monkeypatch.setattr("mpi_fast.constants.UNSURE", 3.0)
    differing = r"UNSURE = 4\.0 \(here 3\.0\), EMPTY = 5\.0 \(here 6\.0\): export its checkpoint again"
    with pytest.raises(ModelError, match=differing) as said:
        Bundle.open(bundle.path)
    assert "\n" not in str(said.value)
    monkeypatch.undo()
    contents = {name: bundle.read(name) for name in bundle.manifest["files"]}
    fewer = {name: value for name, value in bundle.manifest["constants"].items() if name != "CERTAIN"}
    with pytest.raises(ModelError, match=r"CERTAIN = None \(here 8\.0\)"):
        write_bundle(tmp_path / "fewer", {**bundle.manifest, "constants": fewer}, contents)


def test_the_frozen_graph_is_for_others_the_reconstructor_takes_the_general_one(exported):
    """Adding to a bundle changes no image."""
    calibration, rows, _ = measured(FROZEN_GRID)
    frozen_too = Reconstructor(calibration, exported.path)(rows)
    alone = {name: exported.read(name) for name in (PLANE, VOLUME)}
    described = {name: value for name, value in exported.manifest.items() if name != "frozen"}
    bundle = write_bundle(exported.path.parent / "alone", described, alone)
    np.testing.assert_array_equal(Reconstructor(calibration, bundle.path)(rows).image, frozen_too.image)
