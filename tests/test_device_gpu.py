"""The pipeline on a GPU: its graph against eager launches and against the CPU, for long, and from two threads."""

import threading
import time

import numpy as np
import pytest

from mpi_fast import Reconstructor
from mpi_fast.bundle import Bundle
from mpi_fast.engines.torch_device import TorchDeviceEngine
from mpi_fast.errors import DeviceError
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.metrics import psnr
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import FAMILIES, generate
from mpi_fast.pipelines import Sampling
from mpi_fast.pipelines.device import DeviceLoop
from mpi_fast.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.gpu
COUNT = 40
GRAPHS_FOR = (1, 8, 64)


@pytest.fixture(scope="module")
def gpu():
    try:
        return CupyDevice()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def phantoms():
    return generate(list(FAMILIES), COUNT, seed=31)


@pytest.fixture(scope="module")
def rows(phantoms, true_rows):
    signals, rng = phantoms.reshape(COUNT, -1) @ true_rows.T, np.random.default_rng(32)
    return np.concatenate([add_noise(one[None], 5.0 + index % 4 * 10, rng) for index, one in enumerate(signals)])


@pytest.fixture(scope="module")
def make(gpu, calibration):
    checkpoint = load_checkpoint(Bundle.open().checkpoint())

    def pipeline(precision="fp32", batches=GRAPHS_FOR, sampling=Sampling(), longest=64):  # noqa: B008 (frozen)
        def engine():
            return TorchDeviceEngine(checkpoint, "cuda:0", precision)

        return DeviceLoop(calibration, sampling, Bundle.open().sigma_range, engine, CupyDevice, batches, longest)

    return pipeline


@pytest.fixture(scope="module")
def expected(calibration, rows):
    return Reconstructor(calibration, device="cpu")(rows)


def largest_difference(found, wanted):
    return np.abs(found.reshape(wanted.shape) - wanted).max() / np.abs(wanted).max()


def test_float32_gives_the_images_of_the_cpu(make, rows, expected):
    found = make()(rows)
    assert largest_difference(found.image, expected.image) < 1e-3
    assert largest_difference(found.std, expected.std) < 1e-3
    np.testing.assert_allclose(found.snr_db, expected.snr_db, atol=0.01)


@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_less_precision_costs_no_quality(make, rows, phantoms, expected, precision):
    found = make(precision)(rows).image.reshape(phantoms.shape)
    assert psnr(found, phantoms).mean() > psnr(expected.image, phantoms).mean() - 0.05


def test_a_graph_gives_the_bits_of_eager_launches_twice(make, rows):
    replayed, eager = make(batches=(1,)), make(batches=(1,), longest=0)
    assert replayed.graphs[1].captured, replayed.graphs[1]
    assert not eager.graphs[1].captured
    for _ in range(2):
        for index in range(3):
            one, other = replayed(rows[index : index + 1]), eager(rows[index : index + 1])
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.std, other.std)


def test_batches_do_not_matter(make, rows):
    pipeline = make()
    whole = pipeline(rows)
    parts = np.concatenate([pipeline(rows[start:stop]).image for start, stop in ((0, 1), (1, 7), (7, 40))])
    assert largest_difference(parts, whole.image) < 1e-4


def test_every_sampler(make, calibration, rows):
    for sampler, steps in (("heun", 4), ("euler-maruyama", 30), ("predictor-corrector", 100)):
        sampling = Sampling(samples=2, steps=steps, sampler=sampler)
        wanted = Reconstructor(calibration, samples=2, steps=steps, sampler=sampler, device="cpu")(rows[:4])
        assert largest_difference(make(sampling=sampling)(rows[:4]).image, wanted.image) < 2e-3


def test_arrays_that_are_on_the_gpu_stay_there(make, calibration, rows, expected):
    import cupy
    import torch

    reconstruct = Reconstructor(calibration, device="cuda", precision="fp32")
    spectra = np.zeros((COUNT, *calibration.selection.shape), np.complex64)
    spectra[:, calibration.selection] = rows
    pinned = torch.from_numpy(rows).pin_memory()
    for make_signals in (
        lambda: cupy.asarray(rows),
        lambda: cupy.asarray(spectra),
        lambda: pinned.cuda(non_blocking=True),  # still being copied when it is handed over
    ):
        out = reconstruct(make_signals())
        assert isinstance(out.image, cupy.ndarray)
        assert largest_difference(out.image.get(), expected.image) < 1e-3


def test_memory_stays_flat_over_many_frames(make, rows):
    import cupy

    pipeline = make("fp16", batches=(1,))
    assert pipeline.graphs[1].captured, pipeline.graphs[1]
    pipeline(rows[:1])
    before = cupy.cuda.runtime.memGetInfo()[0]
    ends = time.monotonic() + 10
    for index in range(10_000):
        pipeline(rows[index % COUNT][None])
        if time.monotonic() > ends:
            break
    assert index > 100
    assert cupy.cuda.runtime.memGetInfo()[0] >= before - 2**20


def test_two_reconstructors_on_two_threads(make, rows):
    pipelines = [make("fp16", batches=(1,)) for _ in range(2)]
    alone = [pipeline(rows[:1]).image for pipeline in pipelines]
    failures = []

    def repeat(pipeline, expected):
        for _ in range(300):
            if not np.array_equal(pipeline(rows[:1]).image, expected):
                failures.append(1)

    threads = [threading.Thread(target=repeat, args=pair) for pair in zip(pipelines, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_a_full_gpu_gives_one_message(make, rows):
    import cupy

    pipeline = make("fp16", batches=(1, 100_000))
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
