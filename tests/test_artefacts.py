"""What the network is exported as: one graph for a scanner, float16, Triton, and what bundles keep."""

import copy
import importlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import typer
from exported import FROZEN_GRID, checkpoint, measured, planes, relative
from google.protobuf import text_format
from onnx import numpy_helper
from onnx_graph import FixedGraph
from typer.testing import CliRunner

from mpi_fast import constants
from mpi_fast.bundle import FROZEN, PLANE, VOLUME, Bundle, half_name, write_bundle
from mpi_fast.cli import app
from mpi_fast.errors import InputError, MismatchError, ModelError
from mpi_fast.export import artefacts, scanner_graph, triton
from mpi_fast.export.artefacts import scanner, simulated
from mpi_fast.export.frame import Frame
from mpi_fast.export.half import Scaled
from mpi_fast.export.parity import PSNR_LOSS_DB, compared, require
from mpi_fast.export.scanner_graph import frozen_graph
from mpi_fast.export.torch_to_onnx import Graph
from mpi_fast.frozen import frozen_for
from mpi_fast.pipelines.graph import PosteriorGraph
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.training.checkpoint import load_trained

command = importlib.import_module("mpi_fast.export.__main__")
EVERYTHING = {one for name in (PLANE, VOLUME, FROZEN) for one in (name, half_name(name))}
PAGE = Path(__file__).parents[1] / "docs/consoles.md"
AFTERWARDS = """
np.savez("images.npz", image=image, std=std, quantiles=quantiles, snr_db=snr_db)
try:
    import mpi_fast
except ImportError:
    sys.exit(0)
sys.exit("mpi_fast can be imported: this proves nothing")
"""


def frame_of(bundle):
    return Frame(load_trained(bundle.checkpoint()).network).eval()


def copy_of(bundle, folder):
    """The bundle with its checkpoint beside it, to be changed."""
    shutil.copy(bundle.checkpoint(), folder)
    shutil.copytree(bundle.path, folder / "small")
    return Bundle.open(folder / "small")


def snippet_of_the_page(model) -> str:
    """The program that the page shows, on a test's signals instead of zeros."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    lines = next(block for block in blocks if "onnxruntime" in block).replace('"bundle/', f'"{model}/').splitlines()
    changed = ["rows = np.load('rows.npy')" if line.startswith("rows = ") else line for line in lines]
    assert changed != lines
    return "\n".join(["import sys", "sys.modules['mpi_fast'] = None  # where it is installed", *changed, AFTERWARDS])


def test_a_frozen_graph_needs_onnx_runtime_and_nothing_of_ours(exported, tmp_path):
    calibration, rows, _ = measured(FROZEN_GRID)
    rows = np.concatenate([np.zeros_like(rows[:1]), rows])
    np.save(tmp_path / "rows.npy", rows)
    snippet = snippet_of_the_page(exported.path.resolve())
    subprocess.run([sys.executable, "-I", "-c", snippet], cwd=tmp_path, check=True)
    found, expected = np.load(tmp_path / "images.npz"), PosteriorGraph(calibration, exported)(rows)
    assert found["image"].shape == (4, *FROZEN_GRID)
    assert not found["image"][0].any()
    assert found["snr_db"][0] == -np.inf
    for name in ("image", "std", "quantiles"):
        array = getattr(expected, name)
        assert relative(found[name].reshape(array.shape), array) < 1e-4
    np.testing.assert_allclose(found["snr_db"][1:], expected.snr_db[1:], atol=0.01)


def test_a_frozen_volume_is_the_volume(exported):
    calibration, *_ = measured((5, 6, 7))
    rows = np.concatenate([measured((5, 6, 7), snr)[1] for snr in (5.0, 20.0, 35.0)])
    content = frozen_graph(frame_of(exported), calibration).content
    found = onnxruntime.InferenceSession(content).run(None, planes(rows))
    expected = PosteriorGraph(calibration, exported)(rows)
    assert found[0].shape == (9, 5, 6, 7)
    for ours, name in zip(found, ("image", "std", "quantiles", "snr_db", "noise_floor"), strict=True):
        array = getattr(expected, name)
        assert relative(ours.reshape(array.shape), array) < 1e-4


def test_a_frozen_graph_knows_its_rows_and_is_for_one_scanner(exported):
    model = onnx.load_from_string(exported.read(FROZEN))
    calibration, _, _ = measured(FROZEN_GRID)
    selection = json.loads(next(one.value for one in model.metadata_props if one.key == "selection"))
    np.testing.assert_array_equal(np.argwhere(calibration.selection), selection)
    assert [one.dim_param for one in (value.type.tensor_type.shape.dim[0] for value in model.graph.input)] == [
        "frames",
        "frames",
    ]
    assert frozen_for(exported, calibration, "fp32") == frozen_for(exported, calibration, "tf32") == FROZEN
    assert frozen_for(exported, calibration, "fp16") == half_name(FROZEN)
    with pytest.raises(MismatchError, match=r"frozen\.onnx: is frozen for another calibration, scanner\.h5; for this"):
        frozen_for(exported, measured((8, 8))[0], "fp32")
    with pytest.raises(MismatchError, match=r"frozen\.onnx: evaluates the network 2 times, not 1"):
        frozen_for(exported, calibration, "fp32", 1)
    with pytest.raises(MismatchError, match=r"no graph is frozen .*: python -m mpi_fast\.export .* --calibration"):
        frozen_for(Bundle.open(), calibration, "fp32")


def test_a_scanner_too_large_for_a_file_is_refused_before_the_work(exported, monkeypatch):
    monkeypatch.setattr(scanner_graph, "LARGEST_SCANNER", 10**5)
    monkeypatch.setattr(scanner_graph, "to_onnx", None)
    with pytest.raises(ModelError, match=r"72 voxels, .* GiB as constants .* ends at 2 GiB: .*--max-rows.*plane\.onnx"):
        frozen_graph(frame_of(exported), measured(FROZEN_GRID)[0])


def test_at_fixed_addresses_a_frozen_graph_gives_the_same_images_frame_after_frame(exported):
    """What the GPU benchmark captures, bound on the CPU."""
    calibration, rows, _ = measured(FROZEN_GRID)
    run, expected = FixedGraph(exported.read(FROZEN), place="cpu"), PosteriorGraph(calibration, exported)(rows)
    for index in range(3):
        image, std, *_ = run(rows[index : index + 1])
        assert relative(image.ravel(), expected.image[index]) < 1e-4
        assert relative(std.ravel(), expected.std[index]) < 1e-4


@pytest.mark.parametrize("name", [FROZEN, half_name(FROZEN)])
def test_a_frozen_graph_of_one_frame_has_nothing_that_a_cuda_graph_cannot_hold(exported, tmp_path, name):
    """Shapes would be computed on the host, and branches and loops decided there."""
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("frames", 1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(exported.read(name), options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert operators.isdisjoint({"Shape", "Size", "NonZero", "If", "Loop", "Scan"})


def test_nothing_but_plain_operators_and_a_cost_for_each(exported):
    assert exported.manifest["files"].keys() == EVERYTHING
    for name in EVERYTHING:
        model = onnx.load_from_string(exported.read(name))
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert not model.functions
        assert str(exported.path.parent).encode() not in exported.read(name)
        cost = exported.manifest["statistics"][name]
        assert 0 < cost["nodes"] <= cost["nodes_before"]
        assert min(cost["flops"], cost["parameters"], cost["activation_bytes"]) > 0
        halved = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
        expected = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16} if "fp16" in name else {onnx.TensorProto.FLOAT}
        assert halved == expected
        edges = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
        assert set(edges) == {onnx.TensorProto.FLOAT}


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


def test_half_precision_costs_no_image_quality(exported):
    rows = {row["artefact"]: row for row in exported.manifest["parity"] if "fp16" in row["artefact"]}
    assert rows.keys() == {name for name in EVERYTHING if "fp16" in name}
    for row in rows.values():
        assert "simulated frames" in row["what"]
        assert abs(row["psnr_change_db"]) <= PSNR_LOSS_DB
        assert row["passed"]


def test_half_precision_holds_the_large_numbers_at_half_resolution():
    """Features of the packaged network reach 10^5 there, and float16 ends at 65504."""
    convolution = torch.nn.Conv2d(8, 8, 3, padding=1)
    x = 1e5 * torch.randn(2, 8, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = convolution(x)
        found = Scaled(copy.deepcopy(convolution))(x)
    assert expected.abs().max() > 65504
    assert found.dtype == torch.float32
    assert relative(found.numpy(), expected.numpy()) < 2e-3


def test_half_precision_that_costs_quality_is_refused(exported):
    """Weights of the last layers, far too large, stand in for float16 that went wrong."""
    calibration = measured(FROZEN_GRID)[0]
    model = onnx.load_from_string(exported.read(half_name(FROZEN)))
    for tensor in model.graph.initializer:
        if tensor.name.endswith("head.weight"):
            larger = 5.0 * numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(larger.astype(np.float32), tensor.name))
    case, _ = simulated(calibration)
    original = scanner_graph.Frozen(frame_of(exported), calibration)
    rows = compared(original, half_name(FROZEN), model.SerializeToString(), [case])
    assert rows[0]["psnr_change_db"] < -PSNR_LOSS_DB
    with pytest.raises(
        ModelError, match=r"frozen\.fp16\.onnx: .*PSNR -.* dB on [0-9]+ simulated frames, allowed 0\.05 dB"
    ):
        require(rows)


def test_not_a_number_is_never_equal(exported):
    frame, calibration = frame_of(exported), measured(FROZEN_GRID)[0]
    case, _ = simulated(calibration)
    case.inputs[0]["real"][0] = np.nan
    row = compared(scanner_graph.Frozen(frame, calibration), FROZEN, exported.read(FROZEN), [case])[0]
    assert np.isnan(row["relative"])
    assert not row["passed"]


def test_scanners_that_parity_is_measured_with():
    for name, grid in ((PLANE, (19, 19)), (VOLUME, (8, 9, 10))):
        calibration = scanner(name)
        case, _ = simulated(calibration)
        assert calibration.grid == grid
        assert case.truth.shape == (len(case.inputs[0]["real"]), calibration.num_voxels)
        assert (case.truth.max(axis=1) > 0).all()


def triton_definition():
    """Triton's protobuf definition, without the rest of tritonclient, which wants an older protobuf than onnx has."""
    found = importlib.util.find_spec("tritonclient")
    if found is None:
        pytest.skip("pip install --no-deps tritonclient")
    file = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_triton_repository_runs_as_its_config_says(exported):
    """Parsed by Triton's own definition; Triton puts the batch before the dims that the config declares."""
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
    """Only the new graph is made: the others keep their bytes, and what is said of them."""
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
    """Graphs for every calibration are what an export of the same weights has made of them: that takes a minute."""

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
    """No image changes by adding to a bundle."""
    calibration, rows, _ = measured(FROZEN_GRID)
    frozen_too = Reconstructor(calibration, exported.path)(rows)
    alone = {name: exported.read(name) for name in (PLANE, VOLUME)}
    described = {name: value for name, value in exported.manifest.items() if name != "frozen"}
    bundle = write_bundle(exported.path.parent / "alone", described, alone)
    np.testing.assert_array_equal(Reconstructor(calibration, bundle.path)(rows).image, frozen_too.image)
