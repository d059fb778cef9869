"""TensorRT engines on a simulated GPU: addresses, shapes, profiles, contexts, streams, refusals."""

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
from exported import FROZEN_GRID
from fake_gpu import HEADER, fake_tensorrt

from mpi_fast import tensorrt_library
from mpi_fast.bundle import FROZEN, half_name, write_bundle
from mpi_fast.engines.tensorrt_plan import Plan, bind, open_plan
from mpi_fast.errors import InputError, MismatchError, ModelError, MPIFastError
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.tensorrt_library import EngineFacts, engine_key

BATCHES = (2, 16)
PACKAGES = [("tensorrt", "11.4.0"), ("tensorrt_rtx", "1.7.1")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MPI_FAST_CACHE", str(tmp_path / "cache"))
    tensorrt_library.load.cache_clear()
    yield tmp_path / "cache"
    tensorrt_library.load.cache_clear()


@pytest.fixture
def gpus(monkeypatch, tmp_path):
    """Two GPUs of compute capability 8.9."""
    return fake_cuda.install(monkeypatch, tmp_path, devices=2, capability="89")


@pytest.fixture
def install(monkeypatch, gpus):
    """Install one fake package, and hide the other."""

    def put(name, version, **options):
        module = fake_tensorrt(name, version, portable=name == "tensorrt_rtx", **options)
        for key, value in {**dict.fromkeys(tensorrt_library.PACKAGES), name: module}.items():
            monkeypatch.setitem(sys.modules, key, value)
        tensorrt_library.load.cache_clear()
        return module

    return put


def fake_facts(name, content, package, version, capability=89):
    key = engine_key(content, package, version, capability, BATCHES, True)
    file = name.replace(".onnx", f".sm{capability}.engine")
    return EngineFacts(file, name, key, package, version, capability, "fp32", True, BATCHES, (256, 512), ({}, {}))


def with_engines(bundle, folder, package, version, **changes):
    """A copy of a bundle with engines of the fake package."""
    contents = {name: bundle.read(name) for name in bundle.manifest["files"]}
    engines = [fake_facts(name, contents[name], package, version, **changes) for name in (FROZEN, half_name(FROZEN))]
    engine_files = {facts.file: HEADER + contents[facts.onnx] for facts in engines}
    manifest = {**bundle.manifest, "engines": [facts.to_dict() for facts in engines]}
    return write_bundle(folder / "engines", manifest, contents | engine_files)


def test_what_rtx_compiled_is_kept_and_used_again(install, exported, tmp_path, cache):
    module = install("tensorrt_rtx", "1.7.1")
    bundle = with_engines(exported, tmp_path, "tensorrt_rtx", "1.7.1")
    bind(open_plan(bundle, FROZEN), 1, CupyDevice())
    assert [file.read_bytes() for file in (cache / "tensorrt").glob("*.compiled")] == [b"compiled kernels"]
    assert ("deserialize", b"compiled kernels") not in module.calls
    open_plan(bundle, FROZEN)
    assert ("deserialize", b"compiled kernels") in module.calls


def test_bound_to_addresses_and_enqueued(install, exported, tmp_path):
    module = install(*PACKAGES[0])
    plan, device = open_plan(with_engines(exported, tmp_path, *PACKAGES[0]), FROZEN), CupyDevice(1)
    given, made = (
        {name: one.shape for name, one in plan.tensors.items() if one.is_input is way} for way in (True, False)
    )
    rows = given["real"][1]
    assert given == {"real": (-1, rows), "imag": (-1, rows)}
    assert made["image"] == made["std"] == (-1, *FROZEN_GRID)
    with device.active():
        buffers, _, run = bind(plan, 3, device)
        first = buffers["image"].get()
        buffers["real"][:] = np.linspace(0.1, 1, rows)
        assert np.array_equal(buffers["image"].get(), first)
        run.enqueue()
        assert not np.array_equal(buffers["image"].get(), first)
    assert [call[1] for call in module.calls if call[0] == "profile"] == [1]  # of batches of up to 2 and 16


def test_what_cannot_be_bound(install, exported, tmp_path):
    install(*PACKAGES[0])
    plan, device = open_plan(with_engines(exported, tmp_path, *PACKAGES[0]), FROZEN), CupyDevice()
    addresses = dict.fromkeys(plan.tensors, 4096)
    with pytest.raises(InputError, match=r"batch of 17: expected 1 to 16; .* --batch 17"):
        bind(plan, 17, device)
    with pytest.raises(InputError, match="default stream"):
        plan.bind(1, addresses, workspace=256, stream=0)
    del addresses["imag"]
    with pytest.raises(InputError, match=r"addresses of .*: expected .*imag"):
        plan.bind(1, addresses, workspace=256, stream=device.stream_address)


@pytest.mark.parametrize(
    ("engines", "here", "said"),
    [
        (("tensorrt_rtx", "1.6.0", 89), ("tensorrt_rtx", "1.7.1"), r"tensorrt_rtx 1\.6\.0, compute capability 8\.9"),
        (("tensorrt_rtx", "1.7.1", 120), ("tensorrt_rtx", "1.7.1"), r"compute capability 12\.0"),
        (("tensorrt", "11.4.0", 89), ("tensorrt_rtx", "1.7.1"), r"for tensorrt_rtx 1\.7\.1 .* tensorrt 11\.4\.0"),
    ],
)
def test_an_engine_for_another_machine_is_refused_with_how_to_build_one(
    install, exported, tmp_path, engines, here, said
):
    install(*here)
    bundle = with_engines(exported, tmp_path, *engines[:2], capability=engines[2])
    with pytest.raises(MismatchError, match=said) as refusal:
        open_plan(bundle, FROZEN)
    assert f"python -m mpi_fast.export {bundle.path} --tensorrt" in str(refusal.value)


@pytest.mark.parametrize(
    ("invalid", "error", "said"),
    [
        (1, MismatchError, "cannot run it here: version mismatch"),
        (2, MismatchError, "cannot run it here: unsupported cc"),
        (16, MPIFastError, r"not enough memory on the GPU; .* \(--batch\)"),
    ],
)
def test_what_rtx_says_of_an_engine_is_passed_on(install, exported, tmp_path, invalid, error, said):
    install("tensorrt_rtx", "1.7.1", invalid=invalid)
    with pytest.raises(error, match=said):
        open_plan(with_engines(exported, tmp_path, "tensorrt_rtx", "1.7.1"), FROZEN)


def test_not_enough_memory(install, exported, tmp_path):
    install(*PACKAGES[0], context_fails=True)
    plan = open_plan(with_engines(exported, tmp_path, *PACKAGES[0]), FROZEN)
    with pytest.raises(MPIFastError, match=r"frozen\.sm89\.engine, batch 2: .*: not enough memory .* \(--batch\)"):
        bind(plan, 2, CupyDevice())


def test_damaged_engines(install, exported, tmp_path):
    install(*PACKAGES[0])
    bundle = with_engines(exported, tmp_path, *PACKAGES[0])
    facts, trt = tensorrt_library.listed(bundle)[0], tensorrt_library.load("tensorrt")
    with pytest.raises(ModelError, match=r"frozen\.sm89\.engine: tensorrt 11\.4\.0 failed: Serialization assertion"):
        Plan(trt, b"garbage", facts)
    (bundle.path / facts.file).write_bytes(b"garbage")
    with pytest.raises(ModelError, match=r"frozen\.sm89\.engine: its SHA-256"):
        open_plan(bundle, FROZEN)
    with pytest.raises(ModelError, match="list of engines is damaged"):
        tensorrt_library.listed(replace(bundle, manifest={"engines": [{"file": "x"}]}))


def test_an_engine_of_another_onnx_file_is_not_used(install, exported, tmp_path):
    install(*PACKAGES[0])
    bundle = with_engines(exported, tmp_path, *PACKAGES[0])
    contents = {name: bundle.read(name) for name in bundle.manifest["files"]}
    model = onnx.load_from_string(contents[FROZEN])
    model.doc_string = "another"
    bundle = write_bundle(bundle.path, bundle.manifest, {**contents, FROZEN: model.SerializeToString()})
    with pytest.raises(MismatchError, match=r"no engine of frozen\.onnx as it is now"):
        open_plan(bundle, FROZEN)


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
