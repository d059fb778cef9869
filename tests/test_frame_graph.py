"""The whole frame as one graph: the same images as the step loop, for any calibration, and without this package."""

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from onnx_graph import FixedGraph

from mpi_fast.calibration import Calibration
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.engines.torch import TorchEngine
from mpi_fast.errors import InputError
from mpi_fast.export.frame import FrameGraph
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import FAMILIES, generate
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Sampling
from mpi_fast.pipelines.steps import StepLoop
from mpi_fast.preprocessing import RowFilter
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner
from mpi_fast.training.checkpoint import FORMAT, Checkpoint
from mpi_fast.training.network import NetworkConfig, ScoreNetwork

command = importlib.import_module("mpi_fast.export.__main__")
triton = importlib.import_module("mpi_fast.export.triton")
CONFIG = NetworkConfig(features=16, encoder_width=16, encoder_inner=16, encoder_blocks=1, width=16, inner=16, blocks=1)
GRID, STEPS, SAMPLES = (9, 8), 2, 4
OPTIONS = {"samples": SAMPLES, "steps": STEPS, "consensus": 2, "device": "cpu"}
SNRS_DB = np.linspace(5.0, 35.0, 100)


def scanner_calibration(**filters) -> Calibration:
    scanner = Scanner(grid=GRID, sub_voxels=1)
    matrix = scanner.system_matrix()
    return Calibration.from_arrays(matrix, scanner.frequencies, GRID, scanner.field_of_view, rows=RowFilter(**filters))


def frames(calibration) -> np.ndarray:
    """(100, M), from 5 to 35 dB."""
    phantoms = generate(list(FAMILIES), 100, GRID, seed=5).reshape(100, -1) @ calibration.matrix.T
    rng = np.random.default_rng(6)
    rows = [add_noise(one[None], float(snr), rng) for one, snr in zip(phantoms, SNRS_DB, strict=True)]
    return np.concatenate(rows).astype(np.complex64)


@pytest.fixture(scope="module")
def calibrations():
    """Three with different M, one of them with R < N."""
    found = [scanner_calibration(max_frequency=f) for f in (9.5e4, 1.5e5, 4e5)]
    assert len({one.num_rows for one in found}) == 3
    assert found[0].rank < found[-1].rank
    return found


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, calibrations):
    """A network of random weights, as far from a smooth function as any."""
    torch.manual_seed(1)
    network = ScoreNetwork(CONFIG)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.1)
    folder = tmp_path_factory.mktemp("export")
    content = {"format": FORMAT, "grid": list(GRID), "network": CONFIG.to_dict(), "sigma_range": [0.02, 10.0]}
    torch.save({**content, "state": network.state_dict(), "provenance": {}}, folder / "model.pt")
    calibrations[0].save(folder / "scanner.h5")
    return command.make_bundle(
        folder / "model.pt",
        folder / "b",
        precision=("fp32", "fp16"),
        calibration_file=folder / "scanner.h5",
        steps=STEPS,
        consensus=2,
        samples=SAMPLES,
        triton=folder / "repository",
    )


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_graph_serves_every_calibration_and_equals_the_step_loop(bundle, calibrations, which):
    calibration = calibrations[which]
    rows = frames(calibration)
    one_graph = Reconstructor(calibration, bundle.path, seed=3, **OPTIONS)
    loop = Reconstructor(calibration, bundle.path, seed=3, engine=OnnxEngine(bundle), **OPTIONS)
    assert "one graph" in one_graph.runs_on
    assert "step by step" in loop.runs_on
    found, expected = one_graph(rows), loop(rows)
    per_frame = np.abs(found.image - expected.image).max((1, 2)) / expected.image.max((1, 2))
    assert per_frame.max() < 1e-4
    assert relative(found.std, expected.std) < 1e-4
    assert relative(found.noise_floor, expected.noise_floor) < 1e-4
    np.testing.assert_array_equal(found.snr_db, expected.snr_db)


def test_on_a_square_grid_images_are_transposed_on_their_way_to_consensus():
    grid, rng = (8, 8), torch.manual_seed(2)
    network = ScoreNetwork(CONFIG).eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.1, generator=rng)
    checkpoint = Checkpoint(network, grid, (0.02, 10.0), {})
    scanner = Scanner(grid=grid, sub_voxels=1)
    calibration = Calibration.from_arrays(scanner.system_matrix(), scanner.frequencies, grid, scanner.field_of_view)
    rows = generate("vessels", 3, grid, seed=7).reshape(3, -1) @ calibration.matrix.T
    rows = add_noise(rows, 20.0, np.random.default_rng(8)).astype(np.complex64)
    loop = StepLoop(calibration, Sampling(SAMPLES, STEPS, 3, consensus=8), (0.02, 10.0), TorchEngine(checkpoint))
    expected, reduced = loop(rows), calibration.reduce(rows)
    given = reduced.y, reduced.noise, calibration.singular_values, calibration.basis
    initial = mirrored_normal(3, SAMPLES, calibration.num_voxels)
    with torch.inference_mode():
        tensors = (torch.tensor(np.asarray(array, np.float32)) for array in (*given, initial))
        image, std, _ = FrameGraph(checkpoint, STEPS, SAMPLES, consensus=8)(*tensors)
    assert relative(image.flatten(1).numpy(), expected.image) < 1e-4
    assert relative(std.flatten(1).numpy(), expected.std) < 1e-4


@pytest.mark.parametrize(
    "other", [{"steps": 3}, {"samples": 3}, {"strength": 1.0}, {"guidance": "none"}, {"consensus": 0}]
)
def test_other_settings_take_the_step_loop(bundle, calibrations, other):
    reconstruct = Reconstructor(calibrations[0], bundle.path, **{**OPTIONS, **other})
    assert "step by step" in reconstruct.runs_on


@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_empty_frames_and_units(bundle, calibrations, factor):
    reconstruct = Reconstructor(calibrations[1], bundle.path, **OPTIONS)
    rows = frames(calibrations[1])[:4]
    expected = factor * reconstruct(rows).image
    np.testing.assert_allclose(reconstruct(np.complex64(factor) * rows).image, expected, atol=1e-4 * expected.max())
    empty = reconstruct(np.zeros_like(rows))
    assert not empty.image.any()
    assert not empty.std.any()
    assert not empty.noise_floor.any()


def test_nothing_but_plain_operators_with_fixed_shapes(bundle):
    for name in bundle.manifest["files"]:
        model = onnx.load_from_string(bundle.read(name))
        assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
        assert not model.functions
        free = {axis.dim_param for value in model.graph.input for axis in value.type.tensor_type.shape.dim}
        assert free <= {"", "frames", "batch"}
        cost = bundle.manifest["statistics"][name]
        assert 0 < cost["nodes"] <= cost["nodes_before"]
        assert min(cost["flops"], cost["parameters"], cost["activation_bytes"]) > 0
    operators = bundle.manifest["statistics"]["reconstruct.onnx"]["operators"]
    assert "Identity" not in operators
    assert operators["Sin"] == 1  # of the noise levels only those of consensus are not known beforehand


def test_a_frozen_graph_at_fixed_addresses_gives_the_same_images_frame_after_frame(bundle, calibrations):
    """What the GPU benchmark captures, bound on the CPU."""
    content, calibration = bundle.read("reconstruct.frozen.onnx"), calibrations[0]
    run = FixedGraph(content, mirrored_normal(3, SAMPLES, calibration.num_voxels), "cpu")
    expected = Reconstructor(calibration, bundle.path, seed=3, **OPTIONS)(frames(calibration)[:5])
    for index, rows in enumerate(frames(calibration)[:5]):
        image, std, snr_db = run(rows[None])
        assert relative(image, expected.image[index : index + 1]) < 1e-4
        assert relative(std, expected.std[index : index + 1]) < 1e-4
        np.testing.assert_allclose(snr_db, expected.snr_db[index], atol=0.01)


def test_a_frozen_graph_of_one_frame_has_nothing_that_a_cuda_graph_cannot_hold(bundle, tmp_path):
    """Shapes would be computed on the host, and branches and loops decided there."""
    options = onnxruntime.SessionOptions()
    options.add_free_dimension_override_by_name("frames", 1)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    content = bundle.read("reconstruct.frozen.onnx")
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node}
    assert operators.isdisjoint({"Shape", "Size", "NonZero", "If", "Loop", "Scan"})


def test_half_precision_costs_no_image_quality(bundle):
    rows = [row for row in bundle.manifest["parity"] if row["artefact"] == "score.fp16.onnx"]
    assert len(rows) == STEPS + 1
    assert rows[-1]["psnr_change_db"] >= -0.05
    model = onnx.load_from_string(bundle.read("score.fp16.onnx"))
    kinds = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert kinds == {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}  # the last layer, and the others


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


def test_the_triton_repository_runs_as_its_config_says(bundle, calibrations):
    """Parsed by Triton's own definition; Triton puts the batch before the dims that the config declares."""
    model_config_pb2 = triton_definition()
    folder = bundle.path.parent / "repository" / "mpi_fast"
    config = text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert config.name == folder.name
    assert config.backend == "onnxruntime"
    assert [warm.batch_size for warm in config.model_warmup] == [1, 8, 32]
    session = onnxruntime.InferenceSession(folder / "1" / config.default_model_filename)
    rows = frames(calibrations[0])[: config.max_batch_size]
    planes = {"real": np.ascontiguousarray(rows.real), "imag": np.ascontiguousarray(rows.imag)}
    for given in config.input:
        assert given.data_type == model_config_pb2.TYPE_FP32
        assert planes[given.name].shape == (config.max_batch_size, *given.dims)
    names = [one.name for one in config.output]
    found = dict(zip(names, session.run(names, planes), strict=True))
    for one in config.output:
        dims = one.reshape.shape if one.HasField("reshape") else one.dims
        assert found[one.name].shape == (config.max_batch_size, *dims)
    expected = Reconstructor(calibrations[0], bundle.path, **OPTIONS)(rows)
    assert relative(found["image"], expected.image) < 1e-4


def test_a_folder_of_something_else_is_not_replaced(bundle, tmp_path):
    (tmp_path / "repository" / "mpi_fast").mkdir(parents=True)
    kept = tmp_path / "repository" / "mpi_fast" / "thesis.txt"
    kept.write_text("years of work")
    model = onnx.load_from_string(bundle.read("encoder.onnx"))
    with pytest.raises(InputError, match="not replaced"):
        triton.write_repository(tmp_path / "repository", model, b"")
    with pytest.raises(InputError, match="no such folder"):
        triton.write_repository(tmp_path / "no" / "repository", model, b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["repository", "mpi_fast", "thesis.txt"]
