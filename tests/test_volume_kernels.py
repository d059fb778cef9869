"""Comparison of the network's kernels for volumes, built by g++, with PyTorch, with slices along every axis.

Tolerances are those of planes, see test_network_kernels.py.
"""

import itertools
from dataclasses import dataclass
from types import SimpleNamespace
from typing import ClassVar

import fake_cuda
import numpy as np
import pytest
import roofline
from block_cases import agree, check_block
from network_cases import expected, loop_of, of_grid, parameters, random_network, rows_of, trained_network
from shim import COMPILER, ShimDevice

from mpi_fast.constants import PLANES
from mpi_fast.kernels.capture import CapturedFrames
from mpi_fast.kernels.combine import plan_shared
from mpi_fast.kernels.combine_volumes import VIEWS, residual_shared
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.launch import SHARED_LIMIT
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.prepare import Basis
from mpi_fast.kernels.slices import slices
from mpi_fast.kernels.weights import Weights
from mpi_fast.likelihood import signal_scale
from mpi_fast.refinement import own_precision

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")
GRIDS = [(5, 7, 6), (6, 5, 9)]


@pytest.mark.parametrize("grid", [*GRIDS, (2, 1, 3)])
def test_slices_are_those_of_the_network(grid):
    """Every voxel has its place in the slices of each orientation."""
    voxels = np.arange(np.prod(grid)).reshape(grid)
    for block in range(7):
        cut, turn = slices(grid, block), PLANES[(block + block // 3) % 3]
        turned = voxels.transpose([axis - 1 for axis in turn])
        assert (cut.count, *cut.grid) == turned.shape
        places = itertools.product(*map(range, turned.shape))
        assert all(turned[place] == np.dot(place, cut.strides) for place in places)


@pytest.mark.parametrize("multiprocessors", [1000, 1])
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("grid", [*GRIDS, (3, 11, 12), (2, 1, 3)])
def test_a_block_is_that_of_torch(device, grid, number, multiprocessors):
    device.multiprocessors = multiprocessors  # few multiprocessors use large tiles
    check_block(device, grid, number)


@pytest.mark.parametrize("blocks", [1, 2, 5])
@pytest.mark.parametrize("grid", GRIDS)
def test_volumes_are_those_of_torch(device, grid, blocks):
    """Five frames, one of them empty, in groups of four that share the reading of V."""
    calibration, network = of_grid(grid, 50), random_network(blocks, seed=blocks)
    rows = rows_of(calibration, 5)
    rows[1] = 0
    loop = loop_of(device, calibration, network, rows)
    loop()
    for found, wanted in zip((loop.image, loop.std, loop.quantiles), expected(network, calibration, rows), strict=True):
        agree(found, wanted, 1e-3)
    assert not loop.image[1].any()


def test_more_blocks_than_share_a_pass_over_the_singular_vectors(device):
    calibration, network = of_grid((3, 4, 5), 20), random_network(30)
    rows = rows_of(calibration, 1)
    loop = loop_of(device, calibration, network, rows)
    loop()
    for found, wanted in zip((loop.image, loop.std), expected(network, calibration, rows)[:2], strict=True):
        agree(found, wanted, 5e-3)


def test_with_a_noisy_image_beside_the_signals(device):
    calibration, network, rng = of_grid((5, 7, 6), 40), random_network(3), np.random.default_rng(5)
    rows = rows_of(calibration, 3)
    noisy = rng.uniform(size=(3, calibration.num_voxels)).astype(np.float32)
    precision = np.array([0.5, 3.0, 20.0], np.float32)
    wanted = expected(network, calibration, rows, noisy, precision)
    loop = loop_of(device, calibration, network, rows, noisy, precision)
    loop()
    for found, one in zip((loop.image, loop.std, loop.quantiles), wanted, strict=True):
        agree(found, one, 1e-3)


def test_a_further_evaluation_is_shown_the_volume_of_the_first(device):
    calibration, network = of_grid((6, 5, 9), 40), random_network(2)
    rows = rows_of(calibration, 3)
    reduced = calibration.reduce(rows)
    scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
    image, std, _ = expected(network, calibration, rows)
    precision = own_precision(std, scale).astype(np.float32)
    wanted = expected(network, calibration, rows, image.astype(np.float32), precision)
    loop = loop_of(device, calibration, network, rows, evaluations=2)
    loop()
    for found, one in zip((loop.image, loop.std, loop.quantiles), wanted, strict=True):
        agree(found, one, 2e-3)


def test_the_trained_network(device):
    calibration, network = of_grid((5, 7, 6), 60), trained_network()
    rows = rows_of(calibration, 1)
    loop = loop_of(device, calibration, network, rows)
    loop()
    image, std, _ = expected(network, calibration, rows)
    agree(loop.image, image, 5e-3)
    agree(loop.std, std, 2e-2)


def test_a_volume_depends_neither_on_its_batch_nor_on_tiles_nor_on_the_order_of_threads(kernel_folder, device):
    calibration, network = of_grid((4, 12, 7), 40), random_network(3)
    rows = rows_of(calibration, 5)
    whole = loop_of(device, calibration, network, rows)
    whole()
    small, backwards = ShimDevice(kernel_folder), ShimDevice(kernel_folder, backwards=True)
    small.multiprocessors, backwards.multiprocessors = 1, 1000
    sides = set()
    for one in (device, small, backwards):
        alone = loop_of(one, calibration, network, rows[2:3])
        sides.add(tuple(side for side, _ in alone._tiles[0]))
        alone()
        for name in ("image", "std", "quantiles"):
            np.testing.assert_array_equal(getattr(alone, name)[0], getattr(whole, name)[2])
    assert len(sides) > 1


def test_a_volume_of_one_slice_is_a_plane(device):
    network = random_network(3)
    images = []
    for grid in ((1, 7, 9), (7, 9)):
        calibration = of_grid(grid, 30)
        loop = loop_of(device, calibration, network, rows_of(calibration, 2))
        loop()
        images.append(loop.image)
    np.testing.assert_array_equal(*images)


def test_broken_signals_show(device):
    calibration = of_grid((5, 7, 6), 40)
    rows = rows_of(calibration, 3)
    rows[0, 3] = np.nan
    loop = loop_of(device, calibration, random_network(2), rows)
    loop()
    assert np.isnan(loop.image[0]).all()
    assert np.isfinite(loop.image[1:]).all()


def test_a_volume_is_one_graph_of_counted_nodes(monkeypatch, kernel_folder):
    gpu = fake_cuda.install(monkeypatch, kernel_folder)
    calibration, network, device = of_grid((5, 7, 6), 40), random_network(3), CupyDevice()
    rows = rows_of(calibration, 1)
    loop = loop_of(device, calibration, network, rows, evaluations=2)
    lane = CapturedFrames(device, {"signals": loop.signals}, loop, loop.outputs)
    block = ["current", "residual", "changes", "fine"]
    evaluation = ["plan", "variances", *block, *block, *block, "coarse", "image", "tails"]
    begin = ["copy", "reduce", "prepare", "white"]
    assert gpu.captured == [[*begin, *evaluation, "refine", *evaluation, *["copy"] * 4]]
    lane.given["signals"][:] = rows
    lane.submit()
    found = lane.collect()
    again = loop_of(ShimDevice(kernel_folder), calibration, network, rows, evaluations=2)
    again()
    np.testing.assert_array_equal(found["image"], again.image)


@dataclass(frozen=True)
class Empty:
    """An array of no memory."""

    shape: tuple[int, ...]
    dtype: np.dtype
    flags: ClassVar = SimpleNamespace(c_contiguous=True)

    def __len__(self):
        return self.shape[0]


class Sizes:
    """A device of 132 multiprocessors that only checks whether launches fit into the shared memory of every GPU."""

    name, multiprocessors, shared_limit = "sizes", 132, SHARED_LIMIT

    def __init__(self):
        self.most = {}

    def upload(self, array):
        return np.asarray(array)

    def empty(self, shape, dtype):
        return Empty(shape, np.dtype(dtype))

    def launch(self, kernel, grid, threads, shared, arguments):
        assert 0 < grid[0] < 2**31
        assert 0 < grid[1] < 2**16
        assert threads <= 1024
        self.most[kernel.name] = max(shared, self.most.get(kernel.name, 0))

    def basis(self, calibration, _):
        """A basis of zeros that take no memory, instead of `Basis.upload`."""
        (voxels, rank), few = (calibration.num_voxels, calibration.rank), self.empty((5,), np.float32)
        of_rank = self.empty((rank,), np.float32)
        return Basis(of_rank, self.empty((rank, voxels), np.float32), of_rank, few, few, 1.0, calibration.num_rows)


@pytest.mark.parametrize(("side", "rank", "frames"), [(19, 2000, 512), (37, 3000, 1), (37, 3000, 64)])
def test_no_launch_of_a_large_volume_asks_for_more_shared_memory_than_every_block_gets(monkeypatch, side, rank, frames):
    calibration, device = roofline.scanner((side,) * 3, rank, 40), Sizes()
    monkeypatch.setattr(Basis, "upload", device.basis)
    weights = Weights.upload(parameters(random_network(28)), device)
    loop = PosteriorLoop(device, calibration, weights, frames, evaluations=2)
    loop()
    assert max(device.most.values()) <= SHARED_LIMIT, device.most
    assert device.most["plan"] == plan_shared(rank)
    assert device.most["residual"] == residual_shared(4 if frames > 1 else 1)
    assert device.most["changes"] == 4 * 256 * VIEWS * (4 if frames > 1 else 1)
