"""TensorRT on a GPU, by the installed package: comparison with ONNX Runtime, capture and replay, refusals."""

import importlib

import numpy as np
import pytest
from exported import FROZEN_GRID, measured, planes, relative

from mpi_fast import tensorrt_library
from mpi_fast.bundle import FROZEN, write_bundle
from mpi_fast.engines.tensorrt_plan import Plan, bind, open_plan
from mpi_fast.errors import MismatchError, MPIFastError
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.reconstructor import Reconstructor

build = importlib.import_module("mpi_fast.export.tensorrt")
pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]
TOLERANCES = {"fp32": 1e-3, "fp16": 2e-2}  # without TF32; relative to the largest value
BATCHES = (1, 8, 32)


@pytest.fixture(scope="module", params=tensorrt_library.PACKAGES)
def trt(request):
    """A package that supports the present GPU."""
    capability = tensorrt_library.device_capability()
    if capability is None:
        pytest.skip("no NVIDIA GPU, or no CuPy to use it")
    try:
        found = tensorrt_library.load(request.param)
    except MPIFastError as error:
        pytest.skip(str(error))
    if capability not in found.capabilities():
        pytest.skip(f"{found.name} {found.version} does not build for compute capability {capability}")
    return found


@pytest.fixture(scope="module")
def bundle(trt, exported, tmp_path_factory):
    """A frozen scanner with engines for this GPU, without TF32."""
    folder = tmp_path_factory.mktemp("engines")
    contents = {name: exported.read(name) for name in exported.manifest["files"]}
    copy = write_bundle(folder / "bundle", exported.manifest, contents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPI_FAST_CACHE", str(folder / "cache"))
        return build.add_engines(copy, trt, [tensorrt_library.device_capability()], BATCHES, False, lambda *_: None)


@pytest.fixture(autouse=True)
def only_this_package(trt, monkeypatch, tmp_path):
    monkeypatch.setenv("MPI_FAST_CACHE", str(tmp_path / "cache"))
    for module in ("mpi_fast.engines.tensorrt_plan", "mpi_fast.export.tensorrt"):
        monkeypatch.setattr(f"{module}.available", lambda: [trt])


@pytest.mark.parametrize("frames", [1, 3, 20])
@pytest.mark.parametrize("precision", TOLERANCES)
def test_reconstruction(bundle, precision, frames):
    calibration, signals, _ = measured(FROZEN_GRID)
    rows = np.resize(signals, (frames, signals.shape[1]))
    reconstruct = Reconstructor(calibration, bundle.path, device="cuda", engine="tensorrt", precision=precision)
    found, expected = reconstruct(rows), Reconstructor(calibration, bundle.path, device="cpu")(rows)
    assert reconstruct.graphs[frames]["captured"], reconstruct.runs_on
    for name in ("image", "std", "noise_floor"):
        assert relative(getattr(found, name), getattr(expected, name)) < TOLERANCES[precision]


def test_a_replay_sees_what_the_buffers_hold_then(bundle):
    """A captured graph that is replayed on other numbers, twice, gives the results of the engine for these."""
    device, plan = CupyDevice(), open_plan(bundle, FROZEN)
    (captured, _scratch, run), (eager, _other, enqueued) = bind(plan, 2, device), bind(plan, 2, device)
    replay = device.record(run.enqueue)
    signals = measured(FROZEN_GRID)[1]
    for rows in (signals[:2], signals[1:]):
        for name, plane in planes(rows).items():
            device.copy(plane, captured[name])
            device.copy(plane, eager[name])
        replay.launch()
        enqueued.enqueue()
        device.wait()
        np.testing.assert_array_equal(captured["image"].get(), eager["image"].get())


def test_what_this_gpu_cannot_run(trt, bundle):
    facts = tensorrt_library.listed(bundle)[0]
    with pytest.raises(MPIFastError, match=r"frozen\..*\.engine: "):
        Plan(trt, b"garbage" * 1000, facts)
    if trt.portable:
        other = next(one for one in trt.capabilities() if one != facts.capability)
        made = build.build_engine(trt, FROZEN, bundle.read(FROZEN), other, (1,), True, lambda *_: None)
        with pytest.raises(MismatchError, match=r"cannot run it here: .*unsupported cc"):
            Plan(trt, made[1], made[0])


def test_a_bundle_without_engines_is_told_how_to_make_them(trt, exported):
    with pytest.raises(MismatchError, match=r"python -m mpi_fast\.export .* --tensorrt"):
        open_plan(exported, FROZEN)
