"""Kernels and pipeline on a GPU: comparison with references and PyTorch, as one graph, on two threads, and for long."""

import os
import threading
import time
import uuid

import numpy as np
import pytest
from kernel_cases import Case, check_network, check_prepare, check_reduce, check_update, host
from network_cases import expected, loop_of, of_grid, random_network, rows_of, trained_network
from shim import GUARD, POISON

from mpi_fast import Reconstruction, Reconstructor
from mpi_fast.bundle import Bundle
from mpi_fast.errors import DeviceError
from mpi_fast.kernels.capture import CapturedFrames
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.likelihood import signal_scale
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.pipelines import Frames, Sampling
from mpi_fast.pipelines.device import PosteriorOnDevice
from mpi_fast.refinement import own_precision

pytestmark = pytest.mark.gpu
COUNT = 12
# Fresh inputs in every run, the same in all its processes; a failing test shows the seed.
SEED = int(os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)[:7], 16)
SHAPES = [
    Case(70, 16, (19, 19), 361, 2451, SEED),
    Case(1, 8, (19, 19), 150, 500, SEED),
    Case(3, 5, (7, 13), 40, 33, SEED),
    Case(2, 3, (28, 30), 200, 700, SEED),
    Case(1, 1, (1, 1), 1, 5, SEED),
    Case(5, 2, (9, 13, 7), 300, 400, SEED),
]


class GuardedDevice(CupyDevice):
    """A device that poisons arrays and guards their ends, as `ShimDevice` does."""

    def __init__(self):
        super().__init__()
        self._guarded = []

    def empty(self, shape, dtype):
        dtype, count = np.dtype(dtype), int(np.prod(shape))
        whole = super().empty(((count + 2 * GUARD) * dtype.itemsize,), np.uint8)
        with self.stream:
            whole.fill(POISON)
        self._guarded.append((whole, dtype.itemsize))
        return whole.view(dtype)[GUARD : GUARD + count].reshape(shape)

    def check_guards(self):
        self.wait()
        for whole, size in self._guarded:
            edges = np.concatenate([host(whole[: GUARD * size]), host(whole[-GUARD * size :])])
            assert (edges == POISON).all(), "written outside an array"
        self._guarded.clear()


@pytest.fixture(scope="module")
def shared():
    try:
        return GuardedDevice()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def device(shared):
    yield shared
    shared.check_guards()


@pytest.fixture(scope="module")
def rows(true_rows):
    phantoms = generate(["tumours", "resolution", "dots"], COUNT, seed=21).reshape(COUNT, -1)
    rows = add_noise(phantoms @ true_rows.T, 25.0, np.random.default_rng(2)).astype(np.complex64)
    rows[1] = 0
    return rows


@pytest.fixture
def pipeline(device, calibration):
    return PosteriorOnDevice(calibration, Bundle.open(), CupyDevice, (1, 8))


def agree(device, found, wanted, tolerance):
    device.wait()
    assert np.abs(host(found) - wanted).max() <= tolerance * np.abs(wanted).max()


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_what_is_around_the_network_agrees_with_its_references(device, case):
    for check in (check_reduce, check_prepare, check_update):
        check(device, case)


@pytest.mark.parametrize("grid", [(7, 13), (28, 30), (5, 13, 9)])
def test_results_do_not_depend_on_tiles(device, grid):
    check_network(device, Case(2, 1, grid, 41, 48, SEED))


@pytest.mark.parametrize("blocks", [1, 4])
def test_random_weights_give_the_images_of_torch(device, calibration, rows, blocks):
    network = random_network(blocks)
    loop = loop_of(device, calibration, network, rows)
    loop()
    for found, wanted in zip((loop.image, loop.std, loop.quantiles), expected(network, calibration, rows), strict=True):
        agree(device, found, wanted, 1e-3)


@pytest.mark.parametrize(("grid", "rank"), [((5, 7, 6), 100), ((11, 9, 13), 300)])
@pytest.mark.parametrize("evaluations", [1, 2])
def test_volumes_are_those_of_torch(device, grid, rank, evaluations):
    volume, network = of_grid(grid, rank), random_network(5)
    rows = rows_of(volume, 5)
    loop = loop_of(device, volume, network, rows, evaluations=evaluations)
    loop()
    found = [loop.image, loop.std, loop.quantiles]
    wanted = expected(network, volume, rows)
    if evaluations == 2:
        reduced = volume.reduce(rows)
        scale = signal_scale(reduced.y, volume.singular_values, reduced.noise)
        guide = wanted[0].astype(np.float32), own_precision(wanted[1], scale).astype(np.float32)
        wanted = expected(network, volume, rows, *guide)
    for one, other in zip(found, wanted, strict=True):
        agree(device, one, other, 1e-3 * evaluations)


def test_the_trained_network_and_a_noisy_image(device, calibration, rows):
    network, rng = trained_network(), np.random.default_rng(5)
    noisy = rng.uniform(size=(COUNT, calibration.num_voxels)).astype(np.float32)
    precision = np.linspace(0, 20, COUNT, dtype=np.float32)
    for guide in ((), (noisy, precision)):
        loop = loop_of(device, calibration, network, rows, *guide)
        loop()
        image, std, _ = expected(network, calibration, rows, *guide)
        agree(device, loop.image, image, 5e-3)
        agree(device, loop.std, std, 2e-2)


def test_a_graph_of_counted_nodes_gives_the_bits_of_single_launches(device, calibration, rows):
    network = trained_network()
    loop = loop_of(device, calibration, network, rows[:1])
    graph = CapturedFrames(device, {"signals": loop.signals}, loop, loop.outputs)
    config = network.config
    kernels = 4 + sum(1 + len(config.residual_blocks(block)) for block in range(config.blocks))
    assert graph.state.nodes == kernels + 1 + len(loop.outputs), graph.state
    assert graph.state.nodes <= 80
    for row in rows[:3]:
        graph.given["signals"][:] = row
        graph.submit()
        image = graph.collect()["image"].copy()
        device.copy(row[None], loop.signals)
        loop()
        device.wait()
        np.testing.assert_array_equal(host(loop.image), image)


def test_batches_do_not_matter(pipeline, rows):
    whole = pipeline(rows)
    assert all(graph.captured for graph in pipeline.graphs.values()), pipeline.graphs
    alone = np.concatenate([pipeline(rows[index : index + 1]).image for index in range(COUNT)])
    np.testing.assert_array_equal(whole.image, alone)


def test_a_volume_is_one_graph_whatever_its_batch_and_in_every_run(device):
    volume = of_grid((11, 9, 13), 300)
    rows = rows_of(volume, 5)
    pipeline = PosteriorOnDevice(volume, Bundle.open(), CupyDevice, (1, 8))
    whole = pipeline(rows)
    assert all(graph.captured for graph in pipeline.graphs.values()), pipeline.graphs
    for _ in range(3):
        alone = np.concatenate([pipeline(row[None]).image for row in rows])
        np.testing.assert_array_equal(whole.image, alone)
    wanted = Reconstructor(volume, device="cpu")(rows)
    agree(device, whole.image.reshape(wanted.image.shape), wanted.image, 5e-3)
    sampling = Sampling(2, 4, 7, "dpm", "ve")
    drawn = pipeline.samples(rows[:2], sampling)
    wanted = Reconstructor(volume, device="cpu").samples(rows[:2], 2, steps=4, seed=7, sampler="dpm", sde="ve")
    assert np.abs(drawn - wanted.reshape(drawn.shape)).max() <= 0.02 * wanted.max()


def test_a_volume_of_the_sizes_of_a_scanner(device):
    """37 x 37 x 37 voxels; test_volume_kernels.py checks the shared memory for all ranks."""
    side, rank = 37, 100
    volume = Case(1, 1, (side,) * 3, rank, rank + 50, SEED).calibration()
    loop = loop_of(device, volume, random_network(2), np.ones((1, volume.num_rows), np.complex64), evaluations=2)
    loop()
    device.wait()
    assert np.isfinite(host(loop.image)).all()


def test_memory_stays_flat_over_many_frames(pipeline, rows):
    import cupy

    pipeline(rows[:1])
    before, ends, count = cupy.cuda.runtime.memGetInfo()[0], time.monotonic() + 5, 0
    while time.monotonic() < ends:
        pipeline(rows[count % COUNT][None])
        count += 1
    assert count > 500
    assert cupy.cuda.runtime.memGetInfo()[0] >= before - 2**20


@pytest.mark.parametrize(
    ("sampler", "sde", "steps"), [("dpm", "ve", 6), ("heun", "ve", 4), ("predictor-corrector", "vp", 20)]
)
def test_samples_are_those_of_the_cpu(calibration, rows, pipeline, sampler, sde, steps):
    sampling = Sampling(3, steps, 7, sampler, sde)
    found = pipeline.samples(rows[:3], sampling)
    wanted = Reconstructor(calibration, device="cpu").samples(
        rows[:3], 3, steps=steps, seed=7, sampler=sampler, sde=sde
    )
    assert np.abs(found - wanted.reshape(found.shape)).max() <= 0.02 * wanted.max()
    np.testing.assert_array_equal(pipeline.samples(rows[2:3], sampling)[0], found[2])


def test_arrays_that_are_on_the_gpu_stay_there(device, calibration, pipeline, rows):
    import cupy
    import torch

    wanted, reconstruct = pipeline(rows).image, Reconstructor(calibration, device="cuda")
    spectra = np.zeros((COUNT, *calibration.selection.shape), np.complex64)
    spectra[:, calibration.selection] = rows
    pinned = torch.from_numpy(rows).pin_memory()
    for make_signals in (
        lambda: cupy.asarray(rows),
        lambda: cupy.asarray(spectra),
        lambda: torch.from_numpy(rows).cuda(),
        lambda: pinned.to("cuda", non_blocking=True),  # the copy is still running when it is passed on
    ):
        out = reconstruct(make_signals())
        assert isinstance(out.image, cupy.ndarray)
        np.testing.assert_array_equal(out.image.get().reshape(wanted.shape), wanted)


def test_a_loop_on_a_stream_of_its_own_neither_waits_nor_allocates(device, calibration, pipeline, rows):
    """Signals and results are overwritten for every frame, by CuPy and by PyTorch, after work that takes some time."""
    import cupy
    import torch

    reconstruct = Reconstructor(calibration, device="cuda")
    wanted = np.concatenate([pipeline(row[None]).image for row in rows]).reshape(COUNT, *calibration.grid)
    reconstruct.warmup(1)
    measured, signals = cupy.asarray(rows), cupy.zeros((1, rows.shape[1]), np.complex64)
    images, busy = cupy.empty(wanted.shape, np.float32), cupy.ones((4096, 4096), np.float32)
    out, pool = reconstruct.enqueue(signals).wait(), cupy.get_default_memory_pool()
    by_torch = torch.cuda.Stream()
    for stream in (cupy.cuda.Stream(non_blocking=True), by_torch, by_torch.cuda_stream):
        address = getattr(stream, "ptr", by_torch.cuda_stream)
        cupy.cuda.get_current_stream().synchronize()
        with cupy.cuda.ExternalStream(address) as own:
            for _ in range(20):
                cupy.matmul(busy, busy, out=cupy.empty_like(busy))
            used = pool.total_bytes()
            for number in range(COUNT):
                signals[:] = measured[number]
                pending = reconstruct.enqueue(signals, out=out, stream=stream)
                images[number] = out.image[0]
            signals.fill(np.nan)
            assert not pending.done
            assert pool.total_bytes() == used
            own.synchronize()
        assert pending.done
        np.testing.assert_array_equal(images.get(), wanted)
        images.fill(0)
    tensors = {name: torch.empty(getattr(out, name).shape, device="cuda") for name in Frames._fields}
    given = Reconstruction(**tensors, elapsed_ms=0.0)
    found = reconstruct.enqueue(torch.from_numpy(rows[:1]).cuda(), out=given).wait()
    np.testing.assert_array_equal(found.image.cpu().numpy(), wanted[:1])


def test_a_full_gpu_gives_one_message(device, calibration, rows):
    import cupy

    pipeline = PosteriorOnDevice(calibration, Bundle.open(), CupyDevice, (1, 100_000))
    kept = []
    try:
        while True:
            kept.append(cupy.cuda.alloc(2**30))
    except cupy.cuda.memory.OutOfMemoryError:
        pass
    with pytest.raises(DeviceError, match="memory"):
        pipeline(np.repeat(rows[:1], 2, axis=0))
    del kept
    cupy.get_default_memory_pool().free_all_blocks()


def test_two_threads(device, calibration, rows):
    failures = []

    def repeat():
        pipeline = PosteriorOnDevice(calibration, Bundle.open(), CupyDevice, (1,))
        expected = pipeline(rows[:1]).image
        for _ in range(200):
            if not (pipeline.graphs[1].captured and np.array_equal(pipeline(rows[:1]).image, expected)):
                failures.append(1)

    threads = [threading.Thread(target=repeat) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_another_device_than_the_current_one(device, calibration, pipeline, rows):
    import cupy

    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    other = PosteriorOnDevice(calibration, Bundle.open(), lambda: CupyDevice(1), (1,))
    assert other.graphs[1].captured
    np.testing.assert_allclose(other(rows[:1]).image, pipeline(rows[:1]).image, rtol=1e-3, atol=1e-3)
