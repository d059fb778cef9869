"""Exported graphs, frozen for a scanner and in float16, are as good as the network they are made from."""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported import EVERYTHING, FROZEN_GRID, measured, planes, relative
from onnx import numpy_helper
from onnx_graph import FixedGraph

from mpi_fast.bundle import FROZEN, PLANE, VOLUME, Bundle, half_name
from mpi_fast.errors import MismatchError, ModelError
from mpi_fast.export import scanner_graph
from mpi_fast.export.artefacts import scanner, simulated
from mpi_fast.export.frame import Frame
from mpi_fast.export.half import Scaled
from mpi_fast.export.parity import PSNR_LOSS_DB, compared, require
from mpi_fast.export.scanner_graph import frozen_graph
from mpi_fast.frozen import frozen_for
from mpi_fast.pipelines.graph import PosteriorGraph
from mpi_fast.training.checkpoint import load_trained

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


def test_a_frozen_graph_scales_with_its_signals(exported):
    _, rows, _ = measured(FROZEN_GRID)
    session = onnxruntime.InferenceSession(exported.read(FROZEN))
    names = [one.name for one in session.get_outputs()]
    expected = session.run(None, planes(rows))
    for factor in (1e-30, 1e-24, 1e-18, 1e-9, 1e6):
        found = session.run(None, planes(np.complex64(factor) * rows))
        for name, first, second in zip(names, expected, found, strict=True):
            unit = 1.0 if name in ("quantiles", "snr_db") else factor
            assert relative(second / unit, first) < 1e-4, (name, factor)


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
    with pytest.raises(ModelError, match=r"72 voxels, .* GiB as constants.* at most 2 GiB: .*--max-rows.*plane\.onnx"):
        frozen_graph(frame_of(exported), measured(FROZEN_GRID)[0])


def test_at_fixed_addresses_a_frozen_graph_gives_the_same_images_frame_after_frame(exported):
    """The graph that the GPU benchmark captures, bound on the CPU."""
    calibration, rows, _ = measured(FROZEN_GRID)
    run, expected = FixedGraph(exported.read(FROZEN), place="cpu"), PosteriorGraph(calibration, exported)(rows)
    for index in range(3):
        image, std, *_ = run(rows[index : index + 1])
        assert relative(image.ravel(), expected.image[index]) < 1e-4
        assert relative(std.ravel(), expected.std[index]) < 1e-4


@pytest.mark.parametrize("name", [FROZEN, half_name(FROZEN)])
def test_a_frozen_graph_of_one_frame_has_nothing_that_a_cuda_graph_cannot_hold(exported, tmp_path, name):
    """The host would compute shapes, and decide branches and loops."""
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


def test_half_precision_costs_no_image_quality(exported):
    rows = {row["artefact"]: row for row in exported.manifest["parity"] if "fp16" in row["artefact"]}
    assert rows.keys() == {name for name in EVERYTHING if "fp16" in name}
    for row in rows.values():
        assert "simulated frames" in row["what"]
        assert abs(row["psnr_change_db"]) <= PSNR_LOSS_DB
        assert row["passed"]


def test_half_precision_holds_the_large_numbers_at_half_resolution():
    """Features of the packaged network reach 10^5 there, beyond the float16 maximum of 65504."""
    convolution = torch.nn.Conv2d(8, 8, 3, padding=1)
    x = 1e5 * torch.randn(2, 8, 9, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = convolution(x)
        found = Scaled(copy.deepcopy(convolution))(x)
    assert expected.abs().max() > 65504
    assert found.dtype == torch.float32
    assert relative(found.numpy(), expected.numpy()) < 2e-3


def test_half_precision_that_costs_quality_is_refused(exported):
    """Weights of the last layers that are far too large simulate errors of float16."""
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
