"""TensorRT on a GPU, by whichever package is here: the numbers of ONNX Runtime, capture and replay, refusals."""

import importlib

import numpy as np
import pytest

from mpi_fast import tensorrt
from mpi_fast.bundle import Bundle, write_bundle
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.engines.tensorrt import Plan, open_plan
from mpi_fast.engines.tensorrt_device import TensorRTDeviceEngine, bind
from mpi_fast.errors import MismatchError, MPIFastError
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.reconstructor import Reconstructor

build = importlib.import_module("mpi_fast.export.tensorrt")
pytestmark = [pytest.mark.gpu, pytest.mark.tensorrt]
TOLERANCE = 1e-4  # float32, without TF32; relative to the largest value
BATCHES = (1, 8, 32)


@pytest.fixture(scope="module", params=tensorrt.PACKAGES)
def trt(request):
    """A package that works on the GPU at hand."""
    capability = tensorrt.device_capability()
    if capability is None:
        pytest.skip("no NVIDIA GPU, or no CuPy to use it")
    try:
        found = tensorrt.load(request.param)
    except MPIFastError as error:
        pytest.skip(str(error))
    if capability not in found.capabilities():
        pytest.skip(f"{found.name} {found.version} does not build for compute capability {capability}")
    return found


@pytest.fixture(scope="module")
def bundle(trt, tmp_path_factory):
    """The bundled model with engines for this GPU, without TF32."""
    default, folder = Bundle.open(), tmp_path_factory.mktemp("engines")
    contents = {name: default.read(name) for name in default.manifest["files"]}
    described = {name: value for name, value in default.manifest.items() if name not in ("format", "kind", "files")}
    copy = write_bundle(folder / "bundle", described, contents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPI_FAST_CACHE", str(folder / "cache"))
        return build.add_engines(copy, trt, [tensorrt.device_capability()], BATCHES, False, lambda *_: None)


@pytest.fixture(autouse=True)
def only_this_package(trt, monkeypatch, tmp_path):
    monkeypatch.setenv("MPI_FAST_CACHE", str(tmp_path / "cache"))
    for module in ("mpi_fast.engines.tensorrt", "mpi_fast.export.tensorrt"):
        monkeypatch.setattr(f"{module}.available", lambda: [trt])


def relative(found, expected):
    return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize(("frames", "samples"), [(1, 1), (1, 8), (3, 4)])
def test_random_inputs(bundle, frames, samples):
    device, expected = CupyDevice(), OnnxEngine(bundle).bind(frames, samples)
    sigmas = (0.05, 1.0, 8.0)
    evaluator = TensorRTDeviceEngine(bundle, "fp32").bind(frames, samples, device, sigmas)
    rng = np.random.default_rng(0)
    for sigma in sigmas:
        expected.condition[:] = rng.uniform(0.1, 1.0, expected.condition.shape)
        expected.image[:], expected.sigma[:] = rng.uniform(0.1, 1.0, expected.image.shape), sigma
        for name in ("condition", "image", "sigma"):
            device.copy(getattr(expected, name), getattr(evaluator, name))
        expected.encode()
        evaluator.encode()
        denoised = evaluator.denoise()
        device.wait()
        assert relative(denoised.get(), expected.denoise()) < TOLERANCE


def test_reconstruction(bundle, calibration, true_rows):
    rows = np.ascontiguousarray(true_rows[:, [60, 180, 250]].T)
    options = {"samples": 4, "steps": 5}
    found = Reconstructor(calibration, bundle.path, device="cuda", engine="tensorrt", precision="fp32", **options)(rows)
    expected = Reconstructor(calibration, bundle.path, device="cpu", **options)(rows)
    assert relative(found.image, expected.image) < 10 * TOLERANCE
    assert relative(found.std, expected.std) < 10 * TOLERANCE


@pytest.mark.parametrize("frames", [1, 8, 5])
def test_whole_frames(bundle, calibration, true_rows, frames):
    rows = np.ascontiguousarray(true_rows[:, 100 : 100 + 20 * frames : 20].T)
    found = Reconstructor(calibration, bundle.path, device="cuda", engine="tensorrt-frame")(rows)
    expected = Reconstructor(calibration, bundle.path, device="cpu")(rows)
    for name in ("image", "std", "noise_floor"):
        assert relative(getattr(found, name), getattr(expected, name)) < 10 * TOLERANCE


def test_a_replay_sees_what_the_buffers_hold_then(bundle):
    """A graph captured on some numbers and replayed on others, twice, is the engine run on those."""
    device, plan = CupyDevice(), open_plan(bundle, "encoder.onnx")
    (captured, _, run), (eager, _, enqueued) = bind(plan, 2, device), bind(plan, 2, device)
    replay = device.record(run.enqueue)
    rng = np.random.default_rng(1)
    for _ in range(2):
        given = rng.uniform(0.1, 1.0, captured["condition"].shape).astype(np.float32)
        device.copy(given, captured["condition"])
        device.copy(given, eager["condition"])
        replay.launch()
        enqueued.enqueue()
        device.wait()
        np.testing.assert_array_equal(captured["features"].get(), eager["features"].get())


def test_several_runs_in_one_capture(bundle):
    """As a loop over steps needs it: the output of one run is the input of the next, all in one graph."""
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    plan = open_plan(bundle, "score.onnx")
    with stream:
        buffers = {name: cupy.ones(one.sized(4), one.dtype) for name, one in plan.tensors.items()}
        workspace = cupy.empty(plan.workspace(4), cupy.uint8)
        addresses = {name: one.data.ptr for name, one in buffers.items()}
        run = plan.bind(4, addresses, workspace.data.ptr, stream.ptr)

        def steps():
            for _ in range(3):
                run.enqueue()
                cupy.copyto(buffers["image"][:, 2:3], buffers["denoised"])

        steps()
        buffers["image"][:] = 1
        stream.synchronize()
        stream.begin_capture()
        steps()
        graph = stream.end_capture()
        graph.launch(stream)
        captured = buffers["denoised"].get()
        buffers["image"][:] = 1
        steps()
        np.testing.assert_array_equal(buffers["denoised"].get(), captured)


def test_what_this_gpu_cannot_run(trt, bundle, tmp_path):
    facts = tensorrt.listed(bundle)[0]
    with pytest.raises(MPIFastError, match=r"encoder\..*\.engine: "):
        Plan(trt, b"garbage" * 1000, facts)
    if trt.portable:
        other = next(one for one in trt.capabilities() if one != facts.capability)
        made = build.build_engine(trt, "encoder.onnx", bundle.read("encoder.onnx"), other, (1,), True, lambda *_: None)
        with pytest.raises(MismatchError, match=r"cannot run it here: .*unsupported cc"):
            Plan(trt, made[1], made[0])


def test_rebuilt_for_this_gpu(trt):
    plan = open_plan(Bundle.open(), "encoder.onnx", rebuild=True)
    assert (plan.facts.package, plan.facts.capability) == (trt.name, tensorrt.device_capability())
    with pytest.raises(MismatchError, match=r"python -m mpi_fast\.export .* --tensorrt"):
        open_plan(Bundle.open(), "encoder.onnx")
