"""Running TensorRT engines, on a GPU made of host memory: addresses, shapes, profiles, contexts, streams, refusals."""

import enum
import inspect
import sys
import types
from dataclasses import replace

import fake_cuda
import numpy as np
import onnx
import pytest
from bindings import bindings, parameters
from fake_gpu import HEADER, fake_tensorrt
from shim import COMPILER

from mpi_fast import consensus, tensorrt
from mpi_fast.bundle import Bundle, write_bundle
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.engines.tensorrt import open_plan
from mpi_fast.engines.tensorrt_device import TensorRTDeviceEngine
from mpi_fast.errors import InputError, MismatchError, ModelError, MPIFastError
from mpi_fast.likelihood import CONDITION_CHANNELS
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.pipelines import Sampling
from mpi_fast.pipelines.device import DeviceLoop
from mpi_fast.pipelines.graph import WholeFrame
from mpi_fast.pipelines.steps import StepLoop
from mpi_fast.pipelines.tensorrt_frame import TensorRTFrame
from mpi_fast.tensorrt import EngineFacts, engine_key

BATCHES = (2, 16)
PACKAGES = [("tensorrt", "11.4.0"), ("tensorrt_rtx", "1.7.1")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MPI_FAST_CACHE", str(tmp_path / "cache"))
    tensorrt.load.cache_clear()
    yield tmp_path / "cache"
    tensorrt.load.cache_clear()


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Two GPUs of compute capability 8.9."""
    return fake_cuda.install(monkeypatch, tmp_path, devices=2, capability="89")


@pytest.fixture
def install(monkeypatch, gpus):
    """Put one fake package in place, and take away the other."""

    def put(name, version, **options):
        module = fake_tensorrt(name, version, portable=name == "tensorrt_rtx", **options)
        for key, value in {**dict.fromkeys(tensorrt.PACKAGES), name: module}.items():
            monkeypatch.setitem(sys.modules, key, value)
        tensorrt.load.cache_clear()
        return module

    return put


def fake_facts(name, content, package, version, capability=89):
    key = engine_key(content, package, version, capability, BATCHES, True)
    file = name.replace(".onnx", f".sm{capability}.engine")
    return EngineFacts(file, name, key, package, version, capability, "fp32", True, BATCHES, (256, 512), ({}, {}))


def with_engines(folder, package, version, **changes):
    """The bundled model with fake engines."""
    bundle = Bundle.open()
    contents = {name: bundle.read(name) for name in bundle.manifest["files"]}
    engines = []
    for name in ("encoder.onnx", "score.onnx", "reconstruct.onnx"):
        facts = fake_facts(name, contents[name], package, version, **changes)
        contents[facts.file] = HEADER + contents[name]
        engines.append(facts.to_dict())
    manifest = {"grid": [19, 19], "sigma_range": list(bundle.sigma_range), "engines": engines}
    return write_bundle(folder / "bundle", manifest, contents)


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
@pytest.mark.parametrize(("package", "version"), PACKAGES)
def test_reconstruction_by_engines_is_reconstruction_by_onnx_runtime(
    install, gpus, tmp_path, calibration, true_rows, package, version
):
    module = install(package, version)
    bundle = with_engines(tmp_path, package, version)
    sampling, sigma_range = Sampling(samples=4, steps=3), bundle.sigma_range
    engine = TensorRTDeviceEngine(bundle, "fp32")
    # Not the current device, which is cuda:0.
    reconstruct = DeviceLoop(calibration, sampling, sigma_range, lambda: engine, lambda: CupyDevice(1), (1, 3, 5))
    expected = StepLoop(calibration, sampling, sigma_range, OnnxEngine(bundle))
    rows = (true_rows[:, [100, 180, 250]].T).astype(np.complex64)
    for frames in (3, 1, 2):
        found = reconstruct(rows[:frames]).image
        np.testing.assert_allclose(found, expected(rows[:frames]).image, rtol=1e-4, atol=1e-6)
    assert reconstruct.batch == 3  # 20 images are more than the engine was built for
    assert module.calls.count(("context",)) == 8  # two engines, for samples and for consensus, two batches of frames
    profiles = [call[1] for call in module.calls if call[0] == "profile"]
    # 1 frame, 4 images, and for consensus one; 3 frames, 12 images, 3 and 3; for batches of up to 2 and 16
    assert profiles == [0, 1, 0, 0, 1, 1, 1, 1]
    assert all(graph.captured for graph in reconstruct.graphs.values())
    assert [len(nodes) for nodes in gpus.captured] == [graph.nodes for graph in reconstruct.graphs.values()]
    # The encoder; the start and 3 evaluations of all samples; the steps of consensus.
    assert {nodes.count("engine") for nodes in gpus.captured} == {1 + 4 + consensus.STEPS}


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
def test_the_whole_frame_as_an_engine_is_the_whole_frame_by_onnx_runtime(install, tmp_path, calibration, true_rows):
    install(*PACKAGES[0])
    bundle = with_engines(tmp_path, *PACKAGES[0])
    found = TensorRTFrame(calibration, Sampling(), bundle, "reconstruct.onnx", CupyDevice(1))
    expected = WholeFrame(calibration, Sampling(), bundle, "reconstruct.onnx")
    rows = (true_rows[:, [100, 180, 250]].T).astype(np.complex64)
    for frames in (3, 1, 3):
        for one, other in zip(found(rows[:frames]), expected(rows[:frames]), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)
    assert {frames: graph.nodes for frames, graph in found.graphs.items()} == {3: 6, 1: 6}
    assert found.name.endswith("one CUDA graph of 6 nodes")


def test_what_rtx_compiled_is_kept_and_used_again(install, tmp_path, cache):
    module = install("tensorrt_rtx", "1.7.1")
    bundle = with_engines(tmp_path, "tensorrt_rtx", "1.7.1")
    bound(open_plan(bundle, "score.onnx"), 1)
    assert [file.read_bytes() for file in cache.glob("*.compiled")] == [b"compiled kernels"]
    assert ("deserialize", b"compiled kernels") not in module.calls
    open_plan(bundle, "score.onnx")
    assert ("deserialize", b"compiled kernels") in module.calls


def bound(plan, batch, **changes):
    """Bind to fresh buffers on a device's stream."""
    device = CupyDevice()
    buffers = {name: device.upload(np.ones(one.sized(batch), one.dtype)) for name, one in plan.tensors.items()}
    addresses = {name: device.address(one) for name, one in buffers.items()}
    given = {"addresses": addresses, "stream": device.stream_address, **changes}
    return plan.bind(batch, workspace=256, **given), buffers, device


def test_bound_to_addresses_and_enqueued(install, tmp_path):
    install(*PACKAGES[0])
    plan = open_plan(with_engines(tmp_path, *PACKAGES[0]), "encoder.onnx")
    assert {name: (one.shape, one.is_input) for name, one in plan.tensors.items()} == {
        "condition": ((-1, CONDITION_CHANNELS, 19, 19), True),
        "features": ((-1, plan.tensors["features"].shape[1], 19, 19), False),
    }
    run, buffers, device = bound(plan, 2)
    with device.active():
        first = buffers["features"].get()
        buffers["condition"][:] = 0.5
        assert np.array_equal(buffers["features"].get(), first)
        run.enqueue()
        assert not np.array_equal(buffers["features"].get(), first)


def test_what_cannot_be_bound(install, tmp_path):
    install(*PACKAGES[0])
    plan = open_plan(with_engines(tmp_path, *PACKAGES[0]), "encoder.onnx")
    with pytest.raises(InputError, match=r"batch of 17: expected 1 to 16; .* --batch 17"):
        bound(plan, 17)
    with pytest.raises(InputError, match="default stream"):
        bound(plan, 1, stream=0)
    with pytest.raises(InputError, match="addresses of condition: expected condition, features"):
        bound(plan, 1, addresses={"condition": 4096})


@pytest.mark.parametrize(
    ("engines", "here", "said"),
    [
        (("tensorrt_rtx", "1.6.0", 89), ("tensorrt_rtx", "1.7.1"), r"tensorrt_rtx 1\.6\.0, compute capability 8\.9"),
        (("tensorrt_rtx", "1.7.1", 120), ("tensorrt_rtx", "1.7.1"), r"compute capability 12\.0"),
        (("tensorrt", "11.4.0", 89), ("tensorrt_rtx", "1.7.1"), r"for tensorrt_rtx 1\.7\.1 .* tensorrt 11\.4\.0"),
    ],
)
def test_an_engine_for_another_machine_is_refused_with_how_to_build_one(install, tmp_path, engines, here, said):
    install(*here)
    bundle = with_engines(tmp_path, *engines[:2], capability=engines[2])
    with pytest.raises(MismatchError, match=said) as refusal:
        TensorRTDeviceEngine(bundle, "fp32")
    assert f"python -m mpi_fast.export {bundle.path} --tensorrt" in str(refusal.value)


def test_rebuilt_where_allowed(install, tmp_path, monkeypatch):
    install("tensorrt_rtx", "1.7.1")
    bundle = with_engines(tmp_path, "tensorrt_rtx", "1.6.0")
    asked = []

    def cached(trt, name, content, capability, batches, tf32, watch):
        asked.append((trt.version, name, capability, batches, tf32))
        return fake_facts(name, content, trt.name, trt.version), HEADER + content, ""

    monkeypatch.setattr("mpi_fast.export.tensorrt.cached", cached)
    plan = open_plan(bundle, "score.onnx", rebuild=True)
    assert asked == [("1.7.1", "score.onnx", 89, BATCHES, True)]
    assert plan.facts.version == "1.7.1"


@pytest.mark.parametrize(
    ("invalid", "error", "said"),
    [
        (1, MismatchError, "cannot run it here: version mismatch"),
        (2, MismatchError, "cannot run it here: unsupported cc"),
        (16, MPIFastError, r"not enough memory on the GPU; .* \(--batch\)"),
    ],
)
def test_what_rtx_says_of_an_engine_is_passed_on(install, tmp_path, invalid, error, said):
    install("tensorrt_rtx", "1.7.1", invalid=invalid)
    with pytest.raises(error, match=said):
        open_plan(with_engines(tmp_path, "tensorrt_rtx", "1.7.1"), "score.onnx")


def test_not_enough_memory(install, tmp_path):
    install(*PACKAGES[0], context_fails=True)
    plan = open_plan(with_engines(tmp_path, *PACKAGES[0]), "score.onnx")
    with pytest.raises(MPIFastError, match=r"score\.sm89\.engine, batch 2: .*: not enough memory .* \(--batch\)"):
        bound(plan, 2)


def test_damaged_engines(install, tmp_path):
    install(*PACKAGES[0])
    bundle = with_engines(tmp_path, *PACKAGES[0])
    facts = tensorrt.listed(bundle)[0]
    trt = tensorrt.load("tensorrt")
    with pytest.raises(ModelError, match=r"encoder\.sm89\.engine: tensorrt 11\.4\.0 failed: Serialization assertion"):
        type(open_plan(bundle, "encoder.onnx"))(trt, b"garbage", facts)
    (bundle.path / facts.file).write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"encoder\.sm89\.engine: its SHA-256"):
        open_plan(bundle, "encoder.onnx")
    with pytest.raises(ModelError, match="list of engines is damaged"):
        tensorrt.listed(replace(bundle, manifest={"engines": [{"file": "x"}]}))


def test_an_engine_of_another_onnx_file_is_not_used(install, tmp_path):
    install(*PACKAGES[0])
    bundle = with_engines(tmp_path, *PACKAGES[0])
    contents = {name: bundle.read(name) for name in bundle.manifest["files"]}
    model = onnx.load_from_string(contents["score.onnx"])
    model.doc_string = "another"
    changed = {"grid": [19, 19], "sigma_range": [0.02, 10.0], "engines": bundle.manifest["engines"]}
    bundle = write_bundle(bundle.path, changed, {**contents, "score.onnx": model.SerializeToString()})
    with pytest.raises(MismatchError, match=r"no engine of score\.onnx as it is now"):
        open_plan(bundle, "score.onnx")


@pytest.mark.parametrize(("package", "portable"), [("tensorrt", False), ("tensorrt_rtx", True)])
def test_the_fake_has_nothing_that_the_real_bindings_have_not(tmp_path, package, portable):
    real = bindings(package, tmp_path)
    fake = fake_tensorrt(package, "0", portable=portable)
    classes = {name: one for name, one in vars(fake).items() if inspect.isclass(one)}
    assert len(classes) == (14 if portable else 8)
    assert "nptype" in real[""]
    for name, one in classes.items():
        assert name in real, name
        public = one.__members__ if issubclass(one, enum.Enum) else [key for key in vars(one) if key[0] != "_"]
        for attribute in public:
            assert attribute in real[name], f"{name}.{attribute}"
            function = vars(one).get(attribute)
            if isinstance(function, types.FunctionType) and (counts := parameters(real[name][attribute])):
                assert len(inspect.signature(function).parameters) in counts, f"{name}.{attribute}"
