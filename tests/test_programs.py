"""Arrays and streams of programs on a GPU, on the substitute for CUDA, which detects races."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import fake_cuda
import numpy as np
import pytest
from network_cases import parameters, random_network
from shim import COMPILER
from test_capture import ByDlpack, ByInterface

from mpi_fast import Reconstruction, Reconstructor
from mpi_fast.errors import DeviceError, InputError, MismatchError
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.pipelines import device

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")


@pytest.fixture(scope="module")
def rows(true_rows):
    phantoms = generate(["tumours", "resolution", "dots"], 3, seed=21).reshape(3, -1)
    return add_noise(phantoms @ true_rows.T, 25.0, np.random.default_rng(2)).astype(np.complex64)


@pytest.fixture
def gpu(monkeypatch, kernel_folder):
    """A GPU, and a network of one block."""
    monkeypatch.setattr(device, "network_parameters", lambda content, where: parameters(random_network(1)))
    return fake_cuda.install(monkeypatch, kernel_folder)


@pytest.fixture
def reconstruct(gpu, calibration):
    return Reconstructor(calibration, device="cuda", evaluations=1)


class Program:
    """A caller's program with its own stream."""

    def __init__(self, gpu):
        self.gpu, self.stream = gpu, fake_cuda.Stream(gpu)

    def empty(self, *shape, dtype=np.float32):
        return self.gpu.cupy.empty(shape, dtype)

    def write(self, array, values):
        values = np.array(values)
        self.stream.enqueue(lambda: array.view(np.ndarray).__setitem__(..., values), (), [array.ctypes.data])

    def take(self, array):
        """Enqueue a copy on the stream."""
        copy = self.empty(*array.shape)
        with self.stream:
            copy[...] = array
        return copy

    def read(self, array):
        self.stream.synchronize()
        return array.view(np.ndarray)


@pytest.fixture
def program(gpu):
    return Program(gpu)


@pytest.fixture
def wanted(reconstruct, rows):
    """Images of host arrays by the same kernels, without the correction by signals (`consistency`)."""
    pipeline, _ = reconstruct._chosen()
    frames = pipeline(rows)
    return frames.image.reshape(3, 19, 19), frames.std.reshape(3, 19, 19)


def test_it_returns_before_anything_is_done(monkeypatch, reconstruct, program, rows, wanted):
    reconstruct.warmup(1)
    signals = program.empty(1, rows.shape[1], dtype=np.complex64)
    program.write(signals, rows[:1])
    waited, captured = [], len(program.gpu.captured)
    for waiting in (fake_cuda.Stream, program.gpu.cupy.cuda.Event):
        wait = waiting.synchronize
        monkeypatch.setattr(waiting, "synchronize", lambda self, wait=wait: (waited.append(self), wait(self)))
    pending = reconstruct.enqueue(signals, stream=program.stream)
    assert not pending.done
    assert not waited
    assert program.stream.queue
    found = pending.wait()
    assert waited == [pending.event]
    assert pending.done
    assert len(program.gpu.captured) == captured
    assert found.elapsed_ms > 0
    assert pending.wait() is found
    for image, expected in zip((found.image, found.std), wanted, strict=True):
        assert isinstance(image, fake_cuda.Array)
        np.testing.assert_array_equal(image.view(np.ndarray), expected[:1])


@pytest.mark.parametrize("name", ["ptr", "cuda_stream", None])
def test_a_loop_that_writes_its_signals_and_its_results_again(reconstruct, program, rows, wanted, name):
    """With a stream of CuPy, of PyTorch, and an address; nothing is allocated, and nothing waits before the end."""
    address = program.stream.pointer
    stream = SimpleNamespace(**{name: address}) if name else address
    signals = program.empty(1, rows.shape[1], dtype=np.complex64)
    program.write(signals, rows[:1])
    out = reconstruct.enqueue(signals, stream=stream).wait()
    kept = []
    for row in rows:
        program.write(signals, row[None])
        allocated = len(program.gpu.memories)
        pending = reconstruct.enqueue(signals, out=out, stream=stream)
        assert len(program.gpu.memories) == allocated
        assert pending.wait().image is out.image if row is rows[-1] else not pending.done
        kept.append((program.take(out.image), program.take(out.std)))
    for number, copies in enumerate(kept):
        for copy, expected in zip(copies, wanted, strict=True):
            np.testing.assert_array_equal(program.read(copy)[0], expected[number])


def test_results_outlive_later_calls_that_begin_before_they_are_done(reconstruct, program, rows, wanted):
    """Two calls at once on one lane, and one call that uses two lanes."""
    signals = [program.empty(*part.shape, dtype=np.complex64) for part in (rows[:1], rows[1:2], rows)]
    for array, part in zip(signals, (rows[:1], rows[1:2], rows), strict=True):
        program.write(array, part)
    reconstruct._chosen()[0]._batches = [1, 2]
    reconstruct.warmup(1, 2)
    with program.stream:
        first, second, all_three = (reconstruct.enqueue(array) for array in signals)
    assert not first.done
    np.testing.assert_array_equal(all_three.wait().image.view(np.ndarray), wanted[0])
    np.testing.assert_array_equal(second.wait().image.view(np.ndarray), wanted[0][1:2])
    np.testing.assert_array_equal(first.wait().image.view(np.ndarray), wanted[0][:1])


@pytest.mark.parametrize("producer", [ByInterface, ByDlpack])
def test_arrays_of_other_libraries(reconstruct, program, rows, wanted, producer):
    reconstruct.warmup(1)
    made = producer(program.gpu, rows[:1])
    pending = reconstruct.enqueue(made)
    assert made.stream.queue  # nothing has waited
    np.testing.assert_array_equal(pending.wait().image.view(np.ndarray), wanted[0][:1])


@pytest.mark.parametrize("missing", ["after", "before"])
def test_the_stand_in_finds_the_wait_that_is_left_out(monkeypatch, gpu, calibration, rows, missing):
    """Signals that are not written yet, and signals that are overwritten while they are read."""
    whole = getattr(CupyDevice, missing)

    def without(self, stream):
        if stream is not program.stream:
            whole(self, stream)

    program, reconstruct = Program(gpu), Reconstructor(calibration, device="cuda", evaluations=1)
    reconstruct.warmup(1)
    monkeypatch.setattr(CupyDevice, missing, without)
    signals = program.empty(1, rows.shape[1], dtype=np.complex64)

    def loop():
        for row in rows[:2]:
            program.write(signals, row[None])
            reconstruct.enqueue(signals, stream=program.stream)

    with pytest.raises(fake_cuda.RaceError, match="written" if missing == "after" else "read"):
        loop()


def test_without_a_stream_signals_must_stay(reconstruct, program, rows):
    reconstruct.warmup(1)
    signals = program.empty(1, rows.shape[1], dtype=np.complex64)
    program.write(signals, rows[:1])
    with program.stream:
        pending = reconstruct.enqueue(signals)
    with pytest.raises(fake_cuda.RaceError, match="may not have read"):
        program.write(signals, rows[1:2])
    program.stream.wait_event(pending.event)
    program.write(signals, rows[1:2])


def test_out_of_other_shapes_types_and_places(reconstruct, program, rows):
    signals = program.gpu.cupy.asarray(rows[:2])
    own = {"image": program.empty(2, 19, 19), "std": program.empty(2, 19, 19), "quantiles": program.empty(2, 2)}
    own |= {"snr_db": program.empty(2), "noise_floor": program.empty(2), "elapsed_ms": 0.0}
    out = Reconstruction(**own)
    assert reconstruct.enqueue(signals, out=out).wait().std is out.std
    wrong = {
        r"out: image is float32 \(1, 19, 19\), expected float32 \(2, 19, 19\)": {"image": own["image"][:1]},
        r"out: std is float64 .*, expected float32": {"std": program.empty(2, 19, 19, dtype=np.float64)},
        r"out: image is .*, not contiguous": {"image": program.empty(2, 19, 38)[..., ::2]},
        r"out: snr_db: ndarray is not on a GPU": {"snr_db": np.empty(2, np.float32)},
        r"out: quantiles: NoneType is not on a GPU": {"quantiles": None},
    }
    for message, other in wrong.items():
        with pytest.raises(InputError, match=message):
            reconstruct.enqueue(signals, out=Reconstruction(**own | other))


def test_what_cannot_be_enqueued(reconstruct, program, calibration, rows):
    with pytest.raises(InputError, match="signals: ndarray is not on a GPU"):
        reconstruct.enqueue(rows)
    signals = program.gpu.cupy.asarray(rows)
    with pytest.raises(InputError, match="stream 'mine': expected a CUDA stream of CuPy or PyTorch, or its address"):
        reconstruct.enqueue(signals, stream="mine")
    with pytest.raises(MismatchError, match="the calibration has"):
        reconstruct.enqueue(signals[:, 1:])
    with pytest.raises(InputError, match=r"ONNX Runtime on the CPU, .* does not accept arrays on a GPU"):
        Reconstructor(calibration, device="cpu").enqueue(signals)


def test_a_gpu_that_fails_meanwhile_is_told_by_wait(monkeypatch, reconstruct, program, rows):
    reconstruct.warmup(1)
    signals = program.gpu.cupy.asarray(rows[:1])
    pending = reconstruct.enqueue(signals)

    def lost(stream, length=None):
        raise fake_cuda.CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")

    monkeypatch.setattr(fake_cuda.Stream, "drain", lost)
    with pytest.raises(DeviceError, match="unspecified launch failure"):
        pending.wait()


def test_the_example_runs_where_there_is_a_gpu(gpu, capsys):
    runpy.run_path(str(Path(__file__).parents[1] / "examples" / "gpu_arrays.py"))
    assert capsys.readouterr().out.startswith("PSNR ")
