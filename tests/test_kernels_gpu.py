"""The kernels on a GPU: against their references, against the CPU's images, and in one captured graph."""

import os
import uuid

import numpy as np
import pytest
from kernel_cases import TYPES, Case, check_finish, check_prepare, check_reduce, check_step, host
from shim import GUARD, POISON

from mpi_fast import Reconstructor
from mpi_fast.bundle import Bundle
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.errors import MPIFastError
from mpi_fast.likelihood import CONDITION_CHANNELS
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.loop import Loop
from mpi_fast.kernels.table import consensus_table, step_table
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.samplers import SAMPLERS
from mpi_fast.schedule import VE, VP

pytestmark = pytest.mark.gpu
# Fresh inputs in every run, the same in all its processes; a failing test shows the seed.
SEED = int(os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid.uuid4().hex)[:7], 16)
SHAPES = [
    Case(70, 16, (19, 19), 361, 2451, SEED),
    Case(1, 8, (19, 19), 150, 500, SEED),
    Case(3, 5, (7, 13), 40, 33, SEED),
    Case(2, 3, (28, 30), 200, 700, SEED),
    Case(1, 1, (1, 1), 1, 5, SEED),
]


class GuardedDevice(CupyDevice):
    """Poisons arrays and guards their ends, as the shim does."""

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
        for whole, size in self._guarded:
            edges = np.concatenate([host(whole[: GUARD * size]), host(whole[-GUARD * size :])])
            assert (edges == POISON).all(), "written outside an array"
        self._guarded.clear()


@pytest.fixture(scope="module")
def shared():
    try:
        return GuardedDevice()
    except MPIFastError as error:
        pytest.skip(str(error))


@pytest.fixture
def device(shared):
    yield shared
    shared.stream.synchronize()
    shared.check_guards()


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_reduce_prepare_and_finish(device, case):
    check_reduce(device, case)
    check_finish(device, case)
    for scalar in TYPES:
        check_prepare(device, case, scalar)
        check_prepare(device, case, scalar, channels_last=True)


@pytest.mark.parametrize("case", SHAPES, ids=str)
@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_guided_step(device, case, sampler):
    table = step_table(sampler, VP(), 3)
    for number in range(len(table)):
        check_step(device, case, table, number)
    for scalar in TYPES:
        check_step(device, case, table, 1, scalar, channels_last=True)
    for group in (1, 2):
        check_step(device, case, table, 2, group=group)


@pytest.mark.parametrize("case", SHAPES, ids=str)
def test_consensus_step(device, case):
    table = consensus_table(8, case.grid)
    for number in range(len(table)):
        check_step(device, case, table, number)


class HostNetwork:
    """The bundled network on the CPU behind arrays of the device."""

    def __init__(self, device, evaluator):
        self._device, self._evaluator = device, evaluator
        self.condition, self.image, self.sigma = (
            device.empty(a.shape, a.dtype) for a in (evaluator.condition, evaluator.image, evaluator.sigma)
        )
        self._denoised = device.empty((len(evaluator.image), 1, *evaluator.image.shape[2:]), np.float32)

    def _fetch(self, *names):
        self._device.stream.synchronize()
        for name in names:
            getattr(self._evaluator, name)[...] = host(getattr(self, name))

    def encode(self):
        self._fetch("condition")
        self._evaluator.encode()

    def denoise(self):
        self._fetch("image", "sigma")
        self._device.copy(self._evaluator.denoise(), self._denoised)
        return self._denoised


@pytest.fixture(scope="module")
def rows(calibration, true_rows):
    phantoms = generate(["tumours", "resolution", "dots"], 6, seed=5).reshape(6, -1)
    signals, rng = phantoms @ true_rows.T, np.random.default_rng(6)
    return np.concatenate([add_noise(signals[:3], 25.0, rng), add_noise(signals[3:], 5.0, rng)])


@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_the_same_seed_gives_the_images_of_the_cpu(device, calibration, rows, sampler):
    expected = Reconstructor(calibration, samples=4, steps=6, seed=7, sampler=sampler, device="cpu", consensus=8)(rows)
    bundle = Bundle.open()
    network, again = (HostNetwork(device, OnnxEngine(bundle).bind(len(rows), samples)) for samples in (4, 1))
    table = step_table(sampler, VE(*bundle.sigma_range), 6)
    loop = Loop(device, calibration, network, table, seed=7, consensus=(again, consensus_table(8, calibration.grid)))
    device.copy(rows, loop.signals)
    loop()
    device.stream.synchronize()
    for found, wanted in ((loop.image, expected.image), (loop.std, expected.std)):
        np.testing.assert_allclose(host(found), wanted.reshape(found.shape), rtol=0, atol=1e-3 * wanted.max())


class Shrinking:
    """A network that can be captured: nine tenths of its estimate."""

    def __init__(self, device, frames, samples, grid):
        import cupy

        self._cupy, self._stream = cupy, device.stream
        self.condition = device.empty((frames, CONDITION_CHANNELS, *grid), np.float32)
        self.image = device.empty((frames * samples, 3, *grid), np.float32)
        self.sigma = device.empty((frames * samples,), np.float32)
        self._denoised = device.empty((frames * samples, 1, *grid), np.float32)

    def encode(self):
        pass

    def denoise(self):
        with self._stream:
            self._cupy.multiply(self.image[:, :1], np.float32(0.9), out=self._denoised)
        return self._denoised


def test_a_captured_graph_repeats_what_was_captured_on_new_signals(device, calibration, rows):
    network, again = (Shrinking(device, 3, samples, calibration.grid) for samples in (4, 1))
    loop = Loop(
        device,
        calibration,
        network,
        step_table("dpm", VE(), 5),
        consensus=(again, consensus_table(8, calibration.grid)),
    )
    parts = slice(0, 3), slice(3, 6)

    def images(signals, run):
        device.copy(signals, loop.signals)
        run()
        device.stream.synchronize()
        return host(loop.image), host(loop.std)

    eager = [images(rows[part], loop) for part in parts]
    graph = device.record(loop)
    for part, expected in zip(parts, eager, strict=True):
        replayed = images(rows[part], graph.launch)
        np.testing.assert_array_equal(replayed, expected)
