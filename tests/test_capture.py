"""Capture, streams and devices, on a substitute with the rules of CUDA (fake_cuda.py)."""

import importlib
import sys
import threading
import warnings

import fake_cuda
import numpy as np
import pytest
from kernel_cases import Case
from shim import COMPILER

from mpi_fast.errors import DeviceError, InputError
from mpi_fast.kernels import prepare, reduce
from mpi_fast.kernels.capture import CapturedFrames
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.launch import Kernel
from mpi_fast.pipelines.failures import device_errors

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
CASE = Case(frames=3, rank=11, rows=40)


@pytest.fixture
def gpu(monkeypatch, kernel_folder):
    return fake_cuda.install(monkeypatch, kernel_folder, devices=2)


class Reduction:
    """One kernel between buffers, as a minimal loop."""

    def __init__(self, device, case=CASE):
        self.device, self.calibration = device, case.calibration()
        self.projection = reduce.Projection.upload(self.calibration, device)
        self.signals = device.empty((case.frames, case.rows), np.complex64)
        self.y = device.empty((case.frames, self.calibration.rank), np.float64)
        self.energy = device.empty((case.frames,), np.float64)

    def __call__(self):
        reduce.reduce(self.device, self.projection, self.signals, self.y, self.energy)

    def captured(self):
        outputs = {"y": self.y, "energy": self.energy}
        return CapturedFrames(self.device, {"signals": self.signals}, self, outputs)

    def rows(self, seed):
        rng = np.random.default_rng(seed)
        return rng.standard_normal((*self.signals.shape, 2)).astype(np.float32).view(np.complex64)[..., 0]


def test_frames_are_one_graph_that_follows_its_input(gpu):
    work = Reduction(CupyDevice())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lane = work.captured()
    assert lane.state.captured
    assert gpu.captured == [["copy", "reduce", "copy", "copy"]]
    assert lane.state.to_dict() == {"captured": True, "nodes": 4, "why_not": ""}
    assert str(lane.state) == "one CUDA graph of 4 nodes"
    for seed in (1, 2):
        lane.given["signals"][:] = rows = work.rows(seed)
        lane.submit()
        expected, energy = reduce.reference(work.calibration, rows)
        found = lane.collect()
        np.testing.assert_allclose(found["y"], expected, atol=1e-12 * np.sqrt(energy.max()))


def test_a_graph_gives_the_bits_of_single_launches(gpu):
    work = Reduction(CupyDevice())
    lane = work.captured()
    lane.given["signals"][:] = rows = work.rows(3)
    lane.submit()
    found = lane.collect()["y"].copy()
    single = Reduction(CupyDevice())
    single.device.copy(rows, single.signals)
    single()
    single.device.wait()
    np.testing.assert_array_equal(single.y.view(np.ndarray), found)


@pytest.mark.parametrize("broken", ["set", "get", "wait", "pageable"])
def test_what_cannot_be_captured_runs_eagerly_and_says_why(gpu, broken):
    work = Reduction(device := CupyDevice())
    pageable = work.rows(0)

    def whole():
        if broken == "set":
            work.signals.set(pageable)
        elif broken == "pageable":
            device.copy(pageable, work.signals)
        work()
        if broken == "get":
            work.y.get()
        if broken == "wait":
            device.wait()

    with pytest.warns(RuntimeWarning, match=r"no CUDA graph, so kernels are launched one by one: "):
        lane = CapturedFrames(device, {"signals": work.signals}, whole, {"y": work.y})
    assert not lane.state.captured
    assert "disallowed" in lane.state.why_not or "Unsupported" in lane.state.why_not
    lane.given["signals"][:] = rows = pageable if broken in ("set", "pageable") else work.rows(4)
    lane.submit()
    expected, energy = reduce.reference(work.calibration, rows)
    np.testing.assert_allclose(lane.collect()["y"], expected, atol=1e-12 * np.sqrt(energy.max()))
    again = work.captured()  # after an aborted capture its stream is usable
    assert again.state.captured


def test_results_are_there_only_after_waiting(gpu):
    work = Reduction(CupyDevice())
    lane = work.captured()
    lane.given["signals"][:] = work.rows(5)
    before = lane.results["energy"].copy()
    lane.submit()
    assert np.array_equal(lane.results["energy"], before)
    assert not np.array_equal(lane.collect()["energy"], before)


# ---- streams --------------------------------------------------------------------------------------------------------


class Producer:
    """An array of a library with its own stream, on which it is still being written."""

    def __init__(self, gpu, values):
        self.gpu, self.stream = gpu, fake_cuda.Stream(gpu)
        self.array = gpu.allocate(values.shape, values.dtype, gpu.device).view(fake_cuda.Array)
        address = self.array.ctypes.data
        self.stream.enqueue(lambda: self.array.view(np.ndarray).__setitem__(..., values), (), [address])


class ByInterface(Producer):
    """An array like those of Numba, whose interface names the stream."""

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__cuda_array_interface__, "version": 3, "stream": self.stream.pointer}


class ByDlpack(Producer):
    """An array like those of PyTorch: its interface names no stream, but DLPack makes the consumer's stream wait."""

    __cuda_array_interface__ = property(lambda self: self.array.__cuda_array_interface__)

    def __dlpack_device__(self):
        return 2, self.array.device.id

    def __dlpack__(self, stream):
        self.gpu.of(stream).wait_event(self.stream.record())
        return self.array


def of_cupy(gpu, values):
    return Producer(gpu, values)


@pytest.mark.parametrize("producer", [ByInterface, ByDlpack, of_cupy])
def test_signals_that_are_still_being_written_are_waited_for(gpu, producer):
    work = Reduction(device := CupyDevice())
    rows = work.rows(6)
    made = producer(gpu, rows)
    with made.stream if producer is of_cupy else device._device:
        adopted = device.adopt(made.array if producer is of_cupy else made)
    with device.active():
        work.signals[:] = adopted
    work()
    device.wait()
    expected, energy = reduce.reference(work.calibration, rows)
    np.testing.assert_allclose(work.y.view(np.ndarray), expected, atol=1e-12 * np.sqrt(energy.max()))


def test_the_stand_in_finds_signals_that_nobody_waits_for(gpu):
    work = Reduction(device := CupyDevice())
    made = ByInterface(gpu, work.rows(7))
    with device.active(), pytest.raises(fake_cuda.RaceError, match="may not have written yet"):
        work.signals[:] = made.array


def test_the_stand_in_finds_a_buffer_of_the_default_stream(gpu):
    work = Reduction(CupyDevice())
    work.signals = gpu.cupy.asarray(work.rows(8))  # on the default stream, for which ours does not wait
    with pytest.raises(fake_cuda.RaceError):
        work()


# ---- devices --------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_the_current_one(gpu):
    work = Reduction(device := CupyDevice(1))
    assert gpu.device == 0
    lane = work.captured()
    lane.given["signals"][:] = rows = work.rows(9)
    lane.submit()
    expected, energy = reduce.reference(work.calibration, rows)
    np.testing.assert_allclose(lane.collect()["y"], expected, atol=1e-12 * np.sqrt(energy.max()))
    lane.between()
    device.wait()
    assert {array.device.id for array in (work.signals, work.y, device.upload(rows))} == {1}
    assert gpu.device == 0


def test_signals_on_another_device_are_refused(gpu):
    device = CupyDevice(1)
    for foreign in (gpu.cupy.empty((2, 2), np.complex64), ByInterface(gpu, np.zeros((2, 2), np.complex64))):
        with pytest.raises(InputError, match=r"signals are on cuda:0, but .* expected them on cuda:1"):
            device.adopt(foreign)


def test_a_device_that_is_not_there(gpu):
    with pytest.raises(DeviceError, match="cuda:2: there are 2 CUDA devices, counted from 0"):
        CupyDevice(2)


# ---- threads --------------------------------------------------------------------------------------------------------


class Choosing:
    """Work of a library that selects an algorithm once on each thread, for which it waits for the device."""

    def __init__(self, work):
        self.work, self.chosen = work, threading.local()

    def __call__(self):
        if not hasattr(self.chosen, "algorithm"):
            self.work.device.wait()
            self.chosen.algorithm = 1
        self.work()


def on_thread(work):
    failures = []

    def run():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


def test_the_first_capture_of_another_thread_finds_its_algorithms_chosen(gpu):
    work = Reduction(device := CupyDevice())
    lane = CapturedFrames(device, {"signals": work.signals}, Choosing(work), {"y": work.y})
    assert lane.state.captured
    thread, failures = on_thread(lane.between)
    thread.join()
    assert not failures
    assert [len(nodes) for nodes in gpu.captured] == [3, 1]


def test_one_capture_at_a_time(gpu):
    works = [Reduction(CupyDevice()) for _ in range(4)]
    running = [on_thread(work.captured) for work in works]
    for thread, _ in running:
        thread.join()
    assert not [failure for _, failures in running for failure in failures]
    assert len(gpu.captured) == 4


# ---- shared memory and failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rank", "fits"), [(1200, True), (2400, False)])
def test_a_high_rank_asks_for_shared_memory_or_says_that_there_is_not_enough(gpu, rank, fits):
    case = Case(frames=1, grid=(50, 50), rank=rank, rows=1300)
    calibration, device = case.calibration(), CupyDevice()
    energy, basis = device.upload(np.ones(1)), prepare.Basis.upload(calibration, device)
    reduced = device.upload(np.ones((1, rank)))
    y, statistics = device.empty((1, rank), np.float32), device.empty((5, 1), np.float32)
    condition = device.empty((1, 10, 2500), np.float32)
    if fits:
        prepare.prepare(device, basis, reduced, energy, y, statistics, condition)
        device.wait()
        assert np.isfinite(condition.view(np.ndarray)).all()
        return
    with pytest.raises(DeviceError, match=r"prepare: a block needs \d+ bytes of shared memory, .* has 98304"):
        prepare.prepare(device, basis, reduced, energy, y, statistics, condition)


def of_library(name, kind="Error"):
    return type(kind, (Exception,), {"__module__": name})("went wrong")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        RuntimeError("CUBLAS_STATUS_NOT_INITIALIZED"),
        OSError("libnvrtc.so.13: cannot open shared object file"),
        MemoryError("std::bad_alloc"),
        of_library("cupy_backends.cuda.api.runtime", "CUDARuntimeError"),
        of_library("triton.compiler.errors", "CompilationError"),
        of_library("cuda.core._utils", "CUDAError"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_libraries_raise_is_a_device_error(error):
    with pytest.raises(DeviceError) as told, device_errors():
        raise error
    assert str(error) in str(told.value)
    assert told.value.__cause__ is error


@pytest.mark.parametrize(
    "error", [TypeError("x"), KeyError("x"), ZeroDivisionError(), RecursionError(), InputError("x")]
)
def test_mistakes_pass_unchanged(error):
    with pytest.raises(type(error)) as told, device_errors():
        raise error
    assert told.value is error


def test_a_kernel_that_is_not_there_costs_no_traceback(gpu):
    with pytest.raises(DeviceError, match="No such file"), device_errors():
        CupyDevice().launch(Kernel("missing"), (1, 1), 32, 0, ())


def test_the_stand_in_has_nothing_that_cupy_has_not(gpu):
    """Compares names only, because CuPy can be imported without a GPU but hardly used."""
    fake, real = gpu.cupy, real_cupy()
    for name in vars(fake.cuda):
        assert hasattr(real.cuda, name), name
    for name in vars(fake.cuda.runtime):
        assert hasattr(real.cuda.runtime, name), name
    for name in ("record", "wait_event", "synchronize"):
        assert hasattr(real.cuda.Stream, name), name
    assert hasattr(real.RawKernel, "max_dynamic_shared_size_bytes")


def real_cupy():
    replaced = {name: sys.modules.pop(name) for name in ("cupy", "cupyx")}
    try:
        return importlib.import_module("cupy")
    except ImportError:
        pytest.skip("needs CuPy, which imports without a GPU")
    finally:
        sys.modules.update(replaced)
