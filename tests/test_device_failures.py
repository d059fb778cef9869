"""Failures on a GPU, simulated by kernels built by g++ with NumPy arrays as memory."""

import numpy as np
import pytest
from kernel_cases import random_parameters
from network_cases import expected, random_network, three_frames
from shim import COMPILER, ShimDevice

from mpi_fast import Reconstructor
from mpi_fast.bundle import Bundle
from mpi_fast.errors import DeviceError, InputError, MismatchError
from mpi_fast.pipelines import device

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")


@pytest.fixture
def make(calibration, kernel_folder, monkeypatch):
    """A pipeline of a network of one block."""
    monkeypatch.setattr(device, "network_parameters", lambda content, where: random_parameters(1))

    def pipeline(open_device=lambda: ShimDevice(kernel_folder)):
        return device.PosteriorOnDevice(calibration, Bundle.open(), open_device, (1, 2), 1)

    return pipeline


@pytest.fixture(scope="module")
def rows(true_rows):
    return three_frames(true_rows)


@pytest.fixture(scope="module")
def wanted(calibration, rows):
    image, std, _ = expected(random_network(1), calibration, rows)
    return image, std


def agree(found, wanted, tolerance=1e-3):
    for one, other in zip((found.image, found.std), wanted, strict=True):
        assert np.abs(one - other).max() <= tolerance * np.abs(other).max()


@needs_compiler
def test_no_frames_are_no_images(make, rows):
    assert make()(rows[:0]).image.shape == (0, 361)


@needs_compiler
def test_arrays_of_the_device_in_any_form(make, calibration, rows, wanted):
    pipeline = make()
    spectra = np.full((len(rows), *calibration.selection.shape), 0j, np.complex64)
    spectra[:, calibration.selection] = rows
    for signals in (rows, spectra, np.fft.irfft(spectra, axis=-1)):
        agree(pipeline.enqueue(signals)[0], wanted, 2e-3)


@needs_compiler
def test_arrays_of_the_device_of_another_shape(make, calibration, rows):
    pipeline = make()
    channels, frequencies = calibration.selection.shape
    odd = np.ones((1, channels, calibration.num_samples + 1), np.float32)
    for wrong in (rows[:, 1:], np.ones((1, channels, frequencies + 1), np.complex64), odd, odd[:, 1:, :-1]):
        with pytest.raises(MismatchError, match="the calibration has"):
            pipeline.enqueue(wrong)
    with pytest.raises(InputError, match="expected real"):
        pipeline.enqueue(odd[0])


@needs_compiler
def test_nan_on_the_device_is_not_hidden(make, rows):
    broken = rows[:2].copy()
    broken[1, 3] = np.nan
    found, _ = make().enqueue(broken)
    assert np.isfinite(found.image[0]).all()
    assert np.isnan(found.image[1]).all()


class Sealed(ShimDevice):
    """A device that refuses allocations during a capture and after it."""

    sealed = False

    def empty(self, shape, dtype):
        assert not self.sealed, "allocated in a captured loop"
        return super().empty(shape, dtype)

    def record(self, work):
        self.sealed = True
        return super().record(work)


@needs_compiler
def test_a_captured_lane_allocates_nothing_and_enqueues_the_same_for_every_call(make, kernel_folder, rows):
    devices, counts = [], []

    def open_device():
        devices.append(Sealed(kernel_folder))
        return devices[-1]

    pipeline = make(open_device)
    for start in (0, 1, 2):
        before = devices[-1].enqueued
        pipeline(rows[start : start + 1])
        counts.append(devices[-1].enqueued - before)
    # Signals; reduce, prepare, plan; the block's three; the image; four results.
    assert counts == [1 + 3 + 3 + 1 + 4] * 3
    assert devices[-1].sealed
    assert {size: graph.nodes for size, graph in pipeline.graphs.items()} == {1: counts[0]}
    assert pipeline.name.endswith(f", one CUDA graph of {counts[0]} nodes")


class Uncapturable(ShimDevice):
    """A device that refuses to capture, and can fail once at one launch."""

    fails_at = None

    def record(self, work):
        raise RuntimeError("operation not permitted when stream is capturing")

    def launch(self, kernel, *how):
        if kernel.name == self.fails_at:
            type(self).fails_at = None
            raise RuntimeError("CUDA error: unspecified")
        super().launch(kernel, *how)


@needs_compiler
@pytest.mark.parametrize("fails_at", ["plan", "coarse"])
def test_what_cannot_be_captured_runs_eagerly_and_after_a_failure_the_next_call_is_right(
    make, kernel_folder, rows, wanted, monkeypatch, fails_at
):
    with pytest.warns(RuntimeWarning, match="no CUDA graph"):
        pipeline = make(lambda: Uncapturable(kernel_folder))
    assert "no CUDA graph: operation not permitted" in pipeline.name
    monkeypatch.setattr(Uncapturable, "fails_at", fails_at)
    with pytest.raises(DeviceError, match="unspecified"):
        pipeline(rows[:1])
    agree(pipeline(rows[:1]), [one[:1] for one in wanted])


class OutOfMemoryError(Exception):
    """The error has the name of CuPy's."""


class Small(ShimDevice):
    def empty(self, shape, dtype):
        raise OutOfMemoryError("out of memory allocating 12,345 bytes")


def test_a_gpu_without_memory_gives_one_message(make, kernel_folder):
    with pytest.raises(DeviceError, match="memory does not suffice: out of memory"):
        make(lambda: Small(kernel_folder))


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"device": "cuda:x"}, {"engine": "caffe"}, {"precision": "int3"}])
def test_devices_and_engines_that_there_are_not(calibration, wrong):
    with pytest.raises(InputError, match=next(iter(wrong.values()))):
        Reconstructor(calibration, **wrong)


class OnGpu:
    """An object with the interface of an array on a GPU."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (1, 2), "typestr": "<c8", "data": (0, False), "version": 3}


def test_arrays_of_a_gpu_need_one(calibration):
    with pytest.raises(InputError, match=r"ONNX Runtime on the CPU, .* does not accept arrays on a GPU"):
        Reconstructor(calibration, device="cpu")(OnGpu())
