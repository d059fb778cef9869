"""The GPU's pipeline without a GPU: kernels built by g++, PyTorch on the CPU, NumPy for the device's memory."""

import contextlib
import sys
import warnings

import numpy as np
import pytest
import torch
import torch.compiler.config
from shim import COMPILER, ShimDevice
from torch.utils._python_dispatch import TorchDispatchMode

from mpi_fast import Reconstructor, consensus, tensorrt
from mpi_fast.bundle import Bundle
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.engines.torch_device import TorchDeviceEngine, TorchDeviceEvaluator
from mpi_fast.errors import DeviceError, InputError, MismatchError
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.pipelines import Sampling, choose
from mpi_fast.pipelines.device import DeviceLoop
from mpi_fast.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++")
BATCHES = (1, 3)
OPTIONS = {"samples": 2, "steps": 2, "seed": 5}
SAMPLING = Sampling(**OPTIONS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(Bundle.open().checkpoint())


@pytest.fixture(scope="module")
def make(calibration, checkpoint, folder):
    def pipeline(precision="fp32", open_device=lambda: ShimDevice(folder), sampling=SAMPLING):
        def engine():
            return TorchDeviceEngine(checkpoint, "cpu", precision)

        return DeviceLoop(calibration, sampling, Bundle.open().sigma_range, engine, open_device, BATCHES)

    return pipeline


@pytest.fixture(scope="module")
def rows(calibration, true_rows):
    phantoms = generate(["tumours", "resolution", "dots"], 8, seed=21).reshape(8, -1)
    rows = add_noise(phantoms @ true_rows.T, 25.0, np.random.default_rng(2)).astype(np.complex64)
    rows[4] = 0
    return rows


@pytest.fixture(scope="module")
def expected(calibration, rows):
    return Reconstructor(calibration, device="cpu", **OPTIONS)(rows)


def largest_difference(found, wanted):
    return np.abs(np.asarray(found).reshape(wanted.shape) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("count", [1, 2, 3, 8])  # alone, padded, whole, in three batches by turns
def test_images_are_those_of_the_cpu(make, rows, expected, count):
    found = make()(rows[:count])
    assert largest_difference(found.image, expected.image[:count]) < 1e-5
    assert largest_difference(found.std, expected.std[:count]) < 1e-5
    np.testing.assert_allclose(found.snr_db, expected.snr_db[:count], atol=1e-4)
    np.testing.assert_allclose(found.noise_floor, expected.noise_floor[:count], rtol=1e-5)


@pytest.mark.parametrize("fails_at", [2, 5])  # while samples are drawn; on the way to consensus
def test_after_a_failure_the_next_call_is_right(make, rows, expected, folder, monkeypatch, fails_at):
    class Uncaptured(ShimDevice):
        def record(self, work):
            raise RuntimeError("not today")

    with pytest.warns(RuntimeWarning, match="not today"):
        pipeline = make(open_device=lambda: Uncaptured(folder))
    evaluations, denoise = [], TorchDeviceEvaluator.denoise

    def failing(evaluator):
        evaluations.append(evaluator)
        if len(evaluations) == fails_at:
            raise RuntimeError("CUDA error: unspecified")
        return denoise(evaluator)

    monkeypatch.setattr(TorchDeviceEvaluator, "denoise", failing)
    with pytest.raises(DeviceError, match="unspecified"):
        pipeline(rows[:1])
    assert largest_difference(pipeline(rows[:1]).image, expected.image[:1]) < 1e-5


def test_no_frames_are_no_images(make, rows):
    assert make()(rows[:0]).image.shape == (0, 361)


def test_without_consensus_the_image_is_the_mean_of_the_samples(make, calibration, rows):
    options = {**OPTIONS, "consensus": 0}
    wanted = Reconstructor(calibration, device="cpu", **options)(rows[:2])
    assert largest_difference(make(sampling=Sampling(**options))(rows[:2]).image, wanted.image) < 1e-5


@pytest.mark.parametrize("sampler", ["heun", "euler-maruyama", "predictor-corrector"])
def test_every_sampler(make, calibration, rows, sampler):
    sampling = Sampling(samples=2, steps=4, seed=5, sampler=sampler)
    wanted = Reconstructor(calibration, samples=2, steps=4, seed=5, sampler=sampler, device="cpu")(rows[:2])
    assert largest_difference(make(sampling=sampling)(rows[:2]).image, wanted.image) < 1e-5


def test_half_precision_changes_little(make, rows, expected):
    assert largest_difference(make("bf16")(rows).image, expected.image) < 0.05


def test_arrays_of_the_device_in_any_form(make, calibration, rows, expected):
    pipeline = make()
    spectra = np.full((len(rows), *calibration.selection.shape), 0j, np.complex64)
    spectra[:, calibration.selection] = rows
    volts = np.fft.irfft(spectra, axis=-1)
    for signals in (rows, spectra, volts):
        found = pipeline.on_device(signals)
        assert largest_difference(found.image, expected.image) < 1e-4
        np.testing.assert_allclose(found.snr_db, expected.snr_db, atol=0.01)
    with pytest.raises(MismatchError, match="on the GPU"):
        pipeline.on_device(rows[:, 1:])


def test_nan_on_the_device_is_not_hidden(make, rows):
    broken = rows[:2].copy()
    broken[1, 3] = np.nan
    found = make().on_device(broken)
    assert np.isfinite(found.image[0]).all()
    assert np.isnan(found.image[1]).all()


class Recorded(ShimDevice):
    """Refuses to allocate while capturing and after."""

    sealed = False

    def empty(self, shape, dtype):
        assert not self.sealed, "allocated in a captured loop"
        return super().empty(shape, dtype)

    def record(self, work):
        self.sealed = True
        return super().record(work)


def test_a_captured_lane_allocates_nothing_and_enqueues_the_same_for_every_call(make, folder, rows):
    devices = []

    def open_device():
        devices.append(Recorded(folder))
        return devices[-1]

    pipeline = make(open_device=open_device)
    counts = []
    for start in (0, 1, 2):
        before = devices[-1].enqueued
        pipeline(rows[start : start + 1])
        counts.append(devices[-1].enqueued - before)
    # Signals; reduce and prepare; the first noise, and after each of three evaluations; the mean; the start of
    # consensus, and after each of its evaluations; the image; three results.
    assert counts == [1 + 2 + 4 + 1 + (1 + consensus.STEPS) + 1 + 3] * 3
    assert devices[-1].sealed
    assert {size: graph.nodes for size, graph in pipeline.graphs.items()} == {1: counts[0]}
    assert pipeline.name.endswith(f", one CUDA graph of {counts[0]} nodes")


def test_every_size_of_a_compiled_network_is_compiled(checkpoint, folder, monkeypatch):
    """By default, torch stops at eight and runs the others uncompiled."""
    compiled = []

    def backend(graph, inputs):
        compiled.append(inputs[0].shape)
        return graph.forward

    compiler = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda network, mode, dynamic: compiler(network, backend=backend, dynamic=dynamic)
    )
    monkeypatch.setattr(torch.compiler.config, "recompile_limit", 8)
    torch.compiler.reset()
    engine = TorchDeviceEngine(checkpoint, "cpu", "fp32", compiled=True)
    for samples in range(1, 11):
        evaluator = engine.bind(1, samples, ShimDevice(folder), [1.0])
        evaluator.encode()
        evaluator.image[:] = 1
        evaluator.denoise()
    evaluator = engine.bind(2, 1, ShimDevice(folder), [1.0, 0.5], relative=True)  # as consensus does
    evaluator.encode()
    evaluator.image[:], evaluator.sigma[:] = 1, 1
    for _ in range(3):
        evaluator.denoise()
    torch.compiler.reset()
    assert len(compiled) == 11


class Uncapturable(ShimDevice):
    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing")


def test_what_cannot_be_captured_runs_eagerly_and_says_so(make, folder, rows, expected):
    with pytest.warns(RuntimeWarning, match="no CUDA graph"):
        pipeline = make(open_device=lambda: Uncapturable(folder))
    assert largest_difference(pipeline(rows[:1]).image, expected.image[:1]) < 1e-5
    assert "no CUDA graph: operation not permitted" in pipeline.name


class OutOfMemoryError(Exception):
    """As CuPy and PyTorch name it."""


class Small(ShimDevice):
    def empty(self, shape, dtype):
        raise OutOfMemoryError("out of memory allocating 12,345 bytes")


class Lost(ShimDevice):
    def wait(self):
        if self.lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    lost = False


def test_a_gpu_without_memory_gives_one_message(make, folder):
    with pytest.raises(DeviceError, match="memory does not suffice: out of memory"):
        make(open_device=lambda: Small(folder))


def test_a_gpu_that_is_lost_gives_way_to_the_cpu(make, calibration, folder, rows, expected, monkeypatch):
    gpu = make(open_device=lambda: Lost(folder))
    monkeypatch.setattr(choose, "_no_gpu", lambda: None)
    monkeypatch.setattr(choose, "_on_gpu", lambda *arguments: (gpu, "as the test wants"))
    asked, auto = (Reconstructor(calibration, device=name, **OPTIONS) for name in ("cuda", "auto"))
    for reconstruct in (asked, auto):
        assert largest_difference(reconstruct(rows[:2]).image, expected.image[:2]) < 1e-5
        assert "on g++" in reconstruct.runs_on
    monkeypatch.setattr(Lost, "lost", True)
    with pytest.raises(DeviceError, match="illegal memory access"):
        asked(rows)
    with pytest.warns(RuntimeWarning, match="from here on the CPU"):
        np.testing.assert_array_equal(auto(rows).image, expected.image)
    assert "on g++" not in auto.runs_on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        auto(rows)


def test_a_gpu_that_does_not_start_gives_way_to_the_cpu(calibration, monkeypatch):
    def broken(*arguments):
        raise DeviceError("libnvrtc.so.13: cannot open shared object file")

    monkeypatch.setattr(choose, "_no_gpu", lambda: None)
    monkeypatch.setattr(choose, "_on_gpu", broken)
    with pytest.raises(DeviceError, match="libnvrtc"):
        Reconstructor(calibration, device="cuda:0")
    with pytest.warns(RuntimeWarning, match="on the CPU: libnvrtc"):
        reconstruct = Reconstructor(calibration)
    assert "libnvrtc" in reconstruct.runs_on


@pytest.mark.parametrize(("engine", "missing"), [("auto", "CuPy"), ("onnx", "CuPy")])
def test_without_cupy_a_gpu_that_was_asked_for_is_refused(calibration, monkeypatch, engine, missing):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceError, match=missing):
        Reconstructor(calibration, device="cuda", engine=engine)


def test_an_onnx_runtime_without_cuda_is_refused():
    with pytest.raises(DeviceError, match="no CUDA"):
        OnnxEngine(Bundle.open(), gpu=0)


def test_every_engine_that_is_not_there_is_named_before_a_gpu_is_given_up(calibration, folder, monkeypatch):
    monkeypatch.setattr("mpi_fast.kernels.cupy_device.CupyDevice", lambda index: ShimDevice(folder))
    for package in ("tensorrt", "tensorrt_rtx", "mpi_fast.engines.torch_device"):
        monkeypatch.setitem(sys.modules, package, None)
    tensorrt.load.cache_clear()
    with pytest.raises(DeviceError, match=r"not tensorrt: .*; not torch: PyTorch .*; not onnx: .*"):
        Reconstructor(calibration, device="cuda")
    tensorrt.load.cache_clear()


def test_an_engine_object_is_not_for_a_gpu(calibration):
    with pytest.raises(InputError, match="engine object"):
        Reconstructor(calibration, device="cuda", engine=OnnxEngine(Bundle.open()))


@pytest.mark.parametrize("engine", ["tensorrt", "torch-compiled"])
def test_engines_of_a_gpu_do_not_run_on_the_cpu(calibration, engine):
    with pytest.raises(InputError, match=engine):
        Reconstructor(calibration, device="cpu", engine=engine)


def test_eager_torch_gives_the_images_of_onnx_runtime(calibration, rows, expected):
    found = Reconstructor(calibration, engine="torch", device="cpu", **OPTIONS)
    assert "as asked for" in found.runs_on
    assert largest_difference(found(rows).image, expected.image) < 1e-4


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"device": "cuda:x"}, {"engine": "caffe"}, {"precision": "int3"}])
def test_devices_and_engines_that_there_are_not(calibration, wrong):
    with pytest.raises(InputError, match=next(iter(wrong.values()))):
        Reconstructor(calibration, **wrong)


class OnGpu:
    """What an array on a GPU looks like from outside."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (1, 2), "typestr": "<c8", "data": (0, False), "version": 3}


def test_arrays_of_a_gpu_need_one(calibration):
    with pytest.raises(InputError, match="signals are on a GPU"):
        Reconstructor(calibration, device="cpu")(OnGpu())


class OnlyWithin(TorchDispatchMode):
    """Counts what torch does, and what of it outside of a context."""

    def __init__(self):
        super().__init__()
        self.within, self.calls, self.outside = 0, 0, set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.calls += 1
        found = function(*args, **(kwargs or {}))
        # Views, such as NumPy's, are nothing that a stream sees.
        if not self.within and found.untyped_storage().data_ptr() != args[0].untyped_storage().data_ptr():
            self.outside.add(function.overloadpacket.__name__)
        return found

    @contextlib.contextmanager
    def stream(self, stream):
        self.within += 1
        yield
        self.within -= 1


@pytest.mark.parametrize("relative", [False, True])
def test_all_that_torch_does_for_a_lane_is_on_its_stream(checkpoint, folder, monkeypatch, relative):
    engine, mode = TorchDeviceEngine(checkpoint, "cpu", "fp16"), OnlyWithin()
    settings = TorchDeviceEvaluator._settings

    @contextlib.contextmanager
    def on_stream(evaluator):
        with mode.stream(None), settings(evaluator):
            yield

    monkeypatch.setattr(TorchDeviceEvaluator, "_settings", on_stream)
    with mode:
        evaluator = engine.bind(1, 2, ShimDevice(folder), [1.0, 0.5], relative=relative)
        evaluator.encode()
        evaluator.denoise()
    assert mode.calls > 50
    assert not mode.outside


@pytest.fixture
def cudnn():
    """Torch's settings, put back after the test."""
    before = torch.backends.cudnn.conv.fp32_precision
    yield torch.backends.cudnn
    torch.backends.cudnn.conv.fp32_precision = before


@pytest.mark.parametrize(("precision", "during"), [("fp32", "ieee"), ("tf32", "tf32"), ("fp16", None), ("bf16", None)])
@pytest.mark.parametrize("host", ["ieee", "tf32", "legacy"])
def test_the_host_programs_settings_of_torch_are_left_alone(
    checkpoint, folder, monkeypatch, cudnn, host, precision, during
):
    if host == "legacy":
        cudnn.allow_tf32 = True
    else:
        cudnn.conv.fp32_precision = host
    before, seen = (cudnn.conv.fp32_precision, cudnn.benchmark, cudnn.deterministic, cudnn.enabled), []
    evaluator = TorchDeviceEngine(checkpoint, "cpu", precision).bind(1, 1, ShimDevice(folder), [1.0])
    encode = evaluator._network.encode
    monkeypatch.setattr(evaluator._network, "encode", lambda x: (seen.append(cudnn.conv.fp32_precision), encode(x))[1])
    evaluator.encode()
    assert seen == [during or before[0]]
    assert (cudnn.conv.fp32_precision, cudnn.benchmark, cudnn.deterministic, cudnn.enabled) == before
    if host == "legacy":
        assert cudnn.allow_tf32


def test_algorithms_by_timing_are_the_hosts_wish_and_said(checkpoint, monkeypatch):
    assert "timing" not in TorchDeviceEngine(checkpoint, "cpu", "fp16").name
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    assert TorchDeviceEngine(checkpoint, "cpu", "fp16").name == "PyTorch, fp16, algorithms by timing"
