"""Engines of a scanner's frozen graph, built without a GPU, and run on a simulated one."""

import importlib
import json

import numpy as np
import onnx
import pytest
import typer
from exported import FROZEN_GRID, measured
from test_tensorrt_run import PACKAGES, cache, gpus, install, with_engines  # noqa: F401 (fixtures)
from typer.testing import CliRunner

from mpi_fast import tensorrt_library
from mpi_fast.bundle import PLANE, VOLUME, Bundle, write_bundle
from mpi_fast.errors import DeviceError, InputError, MismatchError
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.pipelines.graph import PosteriorGraph
from mpi_fast.pipelines.tensorrt_frozen import TensorRTFrozen
from mpi_fast.reconstructor import Reconstructor

command = importlib.import_module("mpi_fast.export.__main__")
build = importlib.import_module("mpi_fast.export.tensorrt")


@pytest.mark.parametrize(("package", "version"), PACKAGES)
def test_reconstruction_by_the_engine_is_reconstruction_by_onnx_runtime(install, exported, tmp_path, package, version):  # noqa: F811
    install(package, version)
    bundle = with_engines(exported, tmp_path, package, version)
    calibration, rows, _ = measured(FROZEN_GRID)
    found, expected = TensorRTFrozen(calibration, bundle, CupyDevice(1), "fp32"), PosteriorGraph(calibration, bundle)
    for frames in (3, 1, 3):  # batches of up to 2 and 16
        for one, other in zip(found(rows[:frames]), expected(rows[:frames]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())
    # Two copies there, the engine, five copies back.
    assert {frames: graph.nodes for frames, graph in found.graphs.items()} == {3: 8, 1: 8}
    assert found.name.startswith(f"{package} {version}, fp32, the scanner in the engine")
    assert found.name.endswith("one CUDA graph of 8 nodes")
    many = np.tile(rows, (12, 1))
    np.testing.assert_allclose(found(many).image, np.tile(expected(rows).image, (12, 1)), atol=1e-3)


def test_the_reconstructor_takes_the_engine_when_asked(install, exported, tmp_path):  # noqa: F811
    install(*PACKAGES[1])
    bundle = with_engines(exported, tmp_path, *PACKAGES[1])
    calibration, rows, _ = measured(FROZEN_GRID)
    expected = Reconstructor(calibration, exported.path, device="cpu")(rows)
    for precision, tolerance in (("fp32", 1e-4), ("tf32", 1e-4), ("fp16", 1e-2)):
        reconstruct = Reconstructor(calibration, bundle.path, device="cuda", engine="tensorrt", precision=precision)
        out = reconstruct(rows)
        assert "the scanner in the engine" in reconstruct.runs_on
        assert out.image.shape == (3, *FROZEN_GRID)
        for name in ("image", "std", "quantiles", "noise_floor", "snr_db"):
            ours, theirs = getattr(out, name), getattr(expected, name)
            assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()


def test_what_an_engine_cannot_do_is_refused(install, exported, tmp_path):  # noqa: F811
    install(*PACKAGES[0])
    bundle = with_engines(exported, tmp_path, *PACKAGES[0])
    calibration = measured(FROZEN_GRID)[0]
    options = {"engine": "tensorrt", "device": "cuda"}
    with pytest.raises(InputError, match="expected auto or onnx on the CPU"):
        Reconstructor(calibration, bundle.path, device="cpu", engine="tensorrt")
    with pytest.raises(InputError, match="'bf16': expected one of fp16, tf32, fp32"):
        Reconstructor(calibration, bundle.path, precision="bf16", **options)
    with pytest.raises(MismatchError, match="is frozen for another calibration"):
        Reconstructor(measured((8, 8))[0], bundle.path, **options)
    with pytest.raises(MismatchError, match="no graph is frozen for a calibration"):
        Reconstructor(calibration, **options)
    with pytest.raises(MismatchError, match=r"no engine of frozen\.fp16\.onnx .* --tensorrt"):
        Reconstructor(calibration, exported.path, **options)


def test_an_engine_has_no_substitute_on_the_cpu(install, exported, tmp_path, monkeypatch):  # noqa: F811
    install(*PACKAGES[1])
    bundle = with_engines(exported, tmp_path, *PACKAGES[1])
    calibration, rows, _ = measured(FROZEN_GRID)
    reconstruct = Reconstructor(calibration, bundle.path, engine="tensorrt")
    with pytest.raises(InputError, match="samples are not drawn by"):
        reconstruct.samples(rows)

    def fails(*_):
        raise DeviceError("unspecified launch failure")

    monkeypatch.setattr(TensorRTFrozen, "__call__", fails)
    with pytest.raises(DeviceError, match="unspecified launch failure"):
        reconstruct(rows)
    monkeypatch.setattr(TensorRTFrozen, "__init__", fails)
    with pytest.raises(DeviceError, match="unspecified launch failure"):
        Reconstructor(calibration, bundle.path, engine="tensorrt")


def test_without_a_gpu_the_engine_says_so(exported):
    calibration = measured(FROZEN_GRID)[0]
    with pytest.raises(DeviceError, match=r"CuPy|CUDA"):
        Reconstructor(calibration, exported.path, device="cuda", engine="tensorrt")
    with pytest.raises(InputError, match="'tensorrt' runs on a GPU: no "):
        Reconstructor(calibration, exported.path, engine="tensorrt")


def test_engines_are_added_to_a_bundle_and_kept(exported, tmp_path, monkeypatch):
    """Engines are built for two cards one after the other, in both precisions; a new export keeps them."""
    pytest.importorskip("tensorrt_rtx", reason="pip install tensorrt-rtx")
    monkeypatch.setenv("MPI_FAST_CACHE", str(tmp_path / "cache"))
    contents = {name: exported.read(name) for name in exported.manifest["files"]}
    (tmp_path / "small.pt").write_bytes(exported.checkpoint().read_bytes())
    bundle = write_bundle(tmp_path / "small", exported.manifest, contents)
    app = typer.Typer()
    app.command()(command.export)
    for capability in ("89", "120"):
        given = [str(bundle.path), "--tensorrt", "--sm", capability, "--batch", "1,8"]
        result = CliRunner().invoke(app, [*given, "--json", str(tmp_path / "said.json")])
        assert result.exit_code == 0, result.output
    engines = json.loads((tmp_path / "said.json").read_text())["engines"]
    assert [(one["onnx"], one["capability"], one["precision"]) for one in engines] == [
        ("frozen.onnx", 89, "fp32"),
        ("frozen.fp16.onnx", 89, "fp16"),
        ("frozen.onnx", 120, "fp32"),
        ("frozen.fp16.onnx", 120, "fp16"),
    ]
    bundle = Bundle.open(bundle.path)
    assert set(contents) < set(bundle.manifest["files"])
    assert all(bundle.manifest["files"][name] == exported.manifest["files"][name] for name in contents)
    for one in engines:
        assert max(map(len, one["layers"])) >= (2 if one["precision"] == "fp16" else 1)
        assert sum(one["layers"][0].values()) < len(onnx.load_from_string(contents[one["onnx"]]).graph.node)
    again = command.make_bundle(tmp_path / "small.pt", bundle.path, precision=("fp32", "fp16"), only_missing=True)
    assert again.manifest["files"] == bundle.manifest["files"]
    assert [facts.file for facts in tensorrt_library.listed(again)] == [one["file"] for one in engines]


def test_engines_need_a_scanner(exported, tmp_path):
    alone = {name: exported.read(name) for name in (PLANE, VOLUME)}
    bundle = write_bundle(tmp_path / "alone", {**exported.manifest, "frozen": []}, alone)
    with pytest.raises(InputError, match=r"no graph in it is frozen for one: add --calibration SCANNER\.h5"):
        build.sources(bundle)
