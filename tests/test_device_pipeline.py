"""The pipeline on a GPU as seen by a caller, on the substitute for CUDA."""

import gc
import sys
import warnings
import weakref
from types import SimpleNamespace

import fake_cuda
import numpy as np
import pytest
from network_cases import of_grid, parameters, random_network, rows_of, trained_network
from shim import COMPILER

from mpi_fast import Reconstructor
from mpi_fast.bundle import PLANE, Bundle
from mpi_fast.engines.initializers import initializers, network_parameters
from mpi_fast.engines.onnx import BoundSession
from mpi_fast.errors import DeviceError, ModelError
from mpi_fast.kernels.weights import Weights
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.pipelines import device


@pytest.fixture(scope="module")
def rows(true_rows):
    phantoms = generate(["tumours", "resolution", "dots"], 3, seed=21).reshape(3, -1)
    return add_noise(phantoms @ true_rows.T, 25.0, np.random.default_rng(2)).astype(np.complex64)


def largest_difference(found, wanted):
    return np.abs(np.asarray(found).reshape(wanted.shape) - wanted).max() / np.abs(wanted).max()


def test_weights_are_read_from_the_graph_without_torch():
    content = Bundle.open().read(PLANE)
    found, wanted = network_parameters(content, PLANE), parameters(trained_network())
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_weights_are_found_by_name_in_any_order():
    """The order in the file has no meaning: the exporter names dense weights, and there are layers of equal size."""
    onnx = pytest.importorskip("onnx", reason="pip install onnx")
    content = Bundle.open().read(PLANE)
    model, wanted = onnx.load_from_string(content), network_parameters(content, PLANE)
    turned = list(model.graph.initializer)[::-1]
    del model.graph.initializer[:]
    model.graph.initializer.extend(turned)
    found = network_parameters(model.SerializeToString(), PLANE)
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    for node in model.graph.node:
        if "network.conditioner.spread.bias" in node.input:
            node.input[:] = ["y", "y"]
    with pytest.raises(ModelError, match=r"x\.onnx: no weight for conditioner\.spread\.bias"):
        network_parameters(model.SerializeToString(), "x.onnx")


@pytest.mark.parametrize("content", [b"", b"\x3a\xff", b"nothing that ONNX knows"])
def test_what_is_no_graph_has_no_weights(content):
    with pytest.raises(ModelError, match=r"x\.onnx: not an ONNX model"):
        initializers(content, "x.onnx")


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
def test_a_gpu_gives_the_images_of_the_cpu_by_one_graph(monkeypatch, tmp_path, calibration, rows):
    gpu = fake_cuda.install(monkeypatch, tmp_path, devices=2)
    reconstruct = Reconstructor(calibration, device="cuda:1")
    assert "kernels" in reconstruct.runs_on
    assert f"one CUDA graph of {len(gpu.captured[0])} nodes" in reconstruct.runs_on
    assert reconstruct.graphs == {1: {"captured": True, "nodes": len(gpu.captured[0]), "why_not": ""}}
    assert len(gpu.captured[0]) <= 2 * 80  # two evaluations
    expected = Reconstructor(calibration, device="cpu")(rows[:1])
    found = reconstruct(rows[:1])
    assert largest_difference(found.image, expected.image) < 5e-3
    assert largest_difference(found.std, expected.std) < 2e-2
    assert largest_difference(found.quantiles, expected.quantiles) < 1e-2
    np.testing.assert_allclose(found.snr_db, expected.snr_db, atol=1e-3)
    np.testing.assert_allclose(found.noise_floor, expected.noise_floor, rtol=1e-4)


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
def test_batches_padded_whole_and_by_turns_and_arrays_of_the_device(monkeypatch, tmp_path, calibration, rows):
    gpu = fake_cuda.install(monkeypatch, tmp_path)
    network = parameters(random_network(1))
    monkeypatch.setattr(device, "network_parameters", lambda content, where: network)
    from mpi_fast.kernels.cupy_device import CupyDevice

    bundle = Bundle.open()
    pipeline = device.PosteriorOnDevice(calibration, bundle, CupyDevice, (1, 2), 1)
    one_by_one = np.concatenate([pipeline(rows[index : index + 1]).image for index in range(3)])
    np.testing.assert_array_equal(pipeline(rows).image, one_by_one)
    many = np.concatenate([rows, rows])
    np.testing.assert_array_equal(pipeline(many).image, np.concatenate([one_by_one, one_by_one]))
    assert {frames: graph.captured for frames, graph in pipeline.graphs.items()} == {1: True, 2: True}
    stream = fake_cuda.Stream(gpu)
    signals = gpu.cupy.empty(rows.shape, np.complex64)
    stream.enqueue(lambda: signals.view(np.ndarray).__setitem__(..., rows), (), [signals.ctypes.data])
    with stream:  # the caller's stream, which is still writing
        found, event = pipeline.enqueue(signals)
    event.synchronize()
    np.testing.assert_array_equal(found.image.view(np.ndarray), one_by_one)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A GPU, and a network of one block."""
    gpu = fake_cuda.install(monkeypatch, tmp_path)
    network = parameters(random_network(1))
    monkeypatch.setattr(device, "network_parameters", lambda content, where: network)
    return gpu


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
def test_a_gpu_is_the_first_choice_until_it_is_lost(monkeypatch, small, calibration, rows):
    on_cpu = Reconstructor(calibration, device="cpu")
    asked, auto = (Reconstructor(calibration, device=name) for name in ("cuda", "auto"))
    for reconstruct in (asked, auto):
        assert "own kernels" in reconstruct.runs_on
        assert reconstruct.graphs[1]["captured"]

    def lost(stream):
        raise fake_cuda.CUDARuntimeError("cudaErrorLaunchFailure: unspecified launch failure")

    monkeypatch.setattr(fake_cuda.Stream, "synchronize", lost)
    with pytest.raises(DeviceError, match="unspecified launch failure"):
        asked(rows[:1])
    with pytest.warns(RuntimeWarning, match="reconstruction continues on the CPU: .*unspecified launch failure"):
        found = auto(rows[:1])
    np.testing.assert_array_equal(found.image, on_cpu(rows[:1]).image)
    assert "on the CPU" in auto.runs_on
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn = auto.samples(rows[:1], 1, steps=1)
    np.testing.assert_array_equal(drawn, on_cpu.samples(rows[:1], 1, steps=1))


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
def test_no_call_after_warming_up_captures_and_closing_gives_memory_back(small, calibration, rows):
    reconstruct = Reconstructor(calibration, device="cuda")
    reconstruct.warmup(1)
    captured = len(small.captured)
    assert {frames: state["captured"] for frames, state in reconstruct.graphs.items()} == {1: True}
    small.spans.clear()
    images = reconstruct(rows[:1]).image
    assert small.spans == ["mpi-fast: submit 1 frames", None, "mpi-fast: collect 1 frames", None]
    assert len(small.captured) == captured
    drawn = reconstruct.samples(rows[:1], 1, steps=1)  # test_device_samples.py compares them with those of the CPU
    assert drawn.shape == (1, 1, *calibration.grid)
    np.testing.assert_array_equal(reconstruct.samples(rows[:1], 1, steps=1), drawn)
    kept = [weakref.ref(lane) for lane, _ in reconstruct._chosen()[0]._lanes.values()]
    reconstruct.close()
    gc.collect()
    assert not any(one() for one in kept)
    assert small.released == [0, 0]
    reconstruct.close()
    np.testing.assert_array_equal(reconstruct(rows[:1]).image, images)


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
def test_samples_give_way_to_the_cpu_too(monkeypatch, small, calibration, rows):
    auto = Reconstructor(calibration)

    def full(shape, dtype):
        raise type("OutOfMemoryError", (Exception,), {})("out of memory allocating 12,345 bytes")

    monkeypatch.setattr(small.cupy, "empty", full)
    with pytest.warns(RuntimeWarning, match="reconstruction continues on the CPU: .*memory does not suffice"):
        drawn = auto.samples(rows[:1], 1, steps=1)
    wanted = Reconstructor(calibration, device="cpu").samples(rows[:1], 1, steps=1)
    np.testing.assert_array_equal(drawn, wanted)


def test_a_gpu_that_does_not_start_gives_way_to_the_cpu(monkeypatch, tmp_path, calibration):
    gpu = fake_cuda.install(monkeypatch, tmp_path)
    gpu.count = 0
    with pytest.raises(DeviceError, match="cuda:0: there are 0 CUDA devices"):
        Reconstructor(calibration, device="cuda")
    with pytest.warns(
        RuntimeWarning, match="on the CPU: the CUDA kernels cannot run: cuda:0: there are 0 CUDA devices"
    ):
        reconstruct = Reconstructor(calibration)
    assert "ONNX Runtime on the CPU" in reconstruct.runs_on
    assert "ONNX Runtime cannot run on the GPU: this ONNX Runtime has no CUDA" in reconstruct.runs_on


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
def test_a_volume_is_that_of_the_cpu_by_one_graph(monkeypatch, tmp_path):
    """The network of the package, with two evaluations, from an array and from the device."""
    gpu = fake_cuda.install(monkeypatch, tmp_path)
    volume = of_grid((4, 6, 5), 60)
    rows = rows_of(volume, 1)
    reconstruct = Reconstructor(volume, device="cuda")
    assert "kernels" in reconstruct.runs_on
    assert reconstruct.graphs == {1: {"captured": True, "nodes": len(gpu.captured[0]), "why_not": ""}}
    expected = Reconstructor(volume, device="cpu")(rows)
    found = reconstruct(rows)
    assert found.image.shape == (1, *volume.grid)
    assert largest_difference(found.image, expected.image) < 5e-3
    assert largest_difference(found.std, expected.std) < 2e-2
    assert largest_difference(found.quantiles, expected.quantiles) < 1e-2
    np.testing.assert_allclose(found.noise_floor, expected.noise_floor, rtol=1e-4)
    on_device = reconstruct.enqueue(gpu.cupy.asarray(rows)).wait()
    np.testing.assert_array_equal(on_device.image.view(np.ndarray), found.image)


@pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
def test_volumes_that_would_fill_the_memory_come_in_smaller_batches(monkeypatch, small):
    volume = of_grid((4, 6, 5), 40)
    monkeypatch.setattr(device, "VOXELS", 2 * volume.num_voxels)
    from mpi_fast.kernels.cupy_device import CupyDevice

    pipeline = device.PosteriorOnDevice(volume, Bundle.open(), CupyDevice, (1, 2, 8), 1)
    rows = rows_of(volume, 3)
    images = pipeline(rows).image
    assert pipeline.batch == 2
    np.testing.assert_array_equal(images, np.concatenate([pipeline(row[None]).image for row in rows]))
    assert {frames: graph.captured for frames, graph in pipeline.graphs.items()} == {1: True, 2: True}


def test_onnx_runtime_on_a_gpu_that_fails_is_a_device_error():
    class Session:
        def io_binding(self):
            return SimpleNamespace(bind_input=None, bind_output=None)

        def get_providers(self):
            return ["CUDAExecutionProvider", "CPUExecutionProvider"]

        def run_with_iobinding(self, binding):
            raise RuntimeError("CUDA failure 700: an illegal memory access was encountered")

    with pytest.raises(DeviceError, match="CUDA failure 700"):
        BoundSession(Session(), {}, {})()


def test_without_cupy_and_cuda_both_reasons_are_given(monkeypatch, calibration):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(
        DeviceError, match=r"the CUDA kernels cannot run: .*CuPy.*; ONNX Runtime cannot run on the GPU: .*no CUDA"
    ):
        Reconstructor(calibration, device="cuda")


def test_a_network_that_the_kernels_are_not_for_is_told(monkeypatch, tmp_path):
    network = parameters(random_network(1))
    network["correctors.0.head.weight"] = np.zeros((5, 16, 3, 3), np.float32)
    with pytest.raises(ModelError, match="5 outputs"):
        Weights.upload(network, None)
