"""Comparison of the network's kernels, built by g++, with PyTorch; their loop as one graph, on a substitute for CUDA.

Tolerances: Factors of convolutions are rounded to float16, by 2^-11 of their values; everything else is float32. A
block adds ``d F`` to the result of the data-consistency step, where d is the posterior deviation. A rounding error of
F, a few times 2^-11 of its size, is therefore smaller in the image; over the blocks it accumulates as a square root.
With random weights, whose F is as large as d, images agree to within 1e-3 of their largest value, and those of the
trained network to within 5e-3.
"""

import fake_cuda
import numpy as np
import pytest
from block_cases import agree, check_block
from network_cases import expected, loop_of, of_grid, parameters, random_network, rows_of, three_frames, trained_network
from shim import COMPILER, ShimDevice

from mpi_fast.errors import ModelError
from mpi_fast.kernels.capture import CapturedFrames
from mpi_fast.kernels.combine import plan_shared
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.launch import SHARED_LIMIT
from mpi_fast.kernels.tiles import COARSE, FINE, coarse_shared, coarse_steps, fine_shared, fine_steps, tiling
from mpi_fast.kernels.weights import Weights, pack
from mpi_fast.likelihood import signal_scale
from mpi_fast.training.network import PosteriorConfig

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")


@pytest.fixture(scope="module")
def rows(true_rows):
    return three_frames(true_rows)


def test_weights_are_packed_as_the_lanes_of_a_warp_take_them():
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 20, 3, 3)).astype(np.float32)
    packed = pack(weight)
    assert packed.shape == (9 * 2, 2, 32, 2)
    for step, tile, lane, register in ((0, 0, 0, 0), (3, 1, 17, 1), (17, 1, 31, 0), (8, 0, 5, 1)):
        tap, first = divmod(step, 2)
        channels = first * 16 + register * 8 + lane % 4 * 2 + np.arange(2)
        wanted = [weight[tile * 8 + lane // 4, c, tap // 3, tap % 3] if c < 20 else 0 for c in channels]
        np.testing.assert_array_equal(
            packed[step, tile, lane, register : register + 1].view(np.float16), np.float16(wanted)
        )


@pytest.mark.parametrize("multiprocessors", [16, 1])
@pytest.mark.parametrize("grid", [(19, 19), (8, 23), (1, 2), (10, 11)])
def test_a_block_is_that_of_torch(device, grid, multiprocessors):
    device.multiprocessors = multiprocessors  # few multiprocessors use large tiles
    check_block(device, grid, 2)


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_images_are_those_of_torch(device, calibration, rows, blocks):
    network = random_network(blocks, seed=blocks)
    loop = loop_of(device, calibration, network, rows)
    loop()
    for found, wanted in zip((loop.image, loop.std, loop.quantiles), expected(network, calibration, rows), strict=True):
        agree(found, wanted, 1e-3)
    assert not loop.image[1].any()


@pytest.mark.parametrize("grid", [(8, 23), (26, 13)])
def test_other_grids(device, grid):
    calibration = of_grid(grid, 30)
    rows, network = rows_of(calibration, 2), random_network(2)
    loop = loop_of(device, calibration, network, rows)
    loop()
    for found, wanted in zip((loop.image, loop.std), expected(network, calibration, rows), strict=False):
        agree(found, wanted, 1e-3)


def test_with_a_noisy_image_beside_the_signals(device, calibration, rows):
    network, rng = random_network(3), np.random.default_rng(5)
    noisy = rng.uniform(size=(3, calibration.num_voxels)).astype(np.float32)
    precision = np.array([0.5, 3.0, 20.0], np.float32)
    wanted = expected(network, calibration, rows, noisy, precision)
    loop = loop_of(device, calibration, network, rows, noisy, precision)
    loop()
    for found, one in zip((loop.image, loop.std, loop.quantiles), wanted, strict=True):
        agree(found, one, 2e-3)
    alone, _, _ = expected(network, calibration, rows)
    assert np.abs(alone - wanted[0]).max() > 0.05 * np.abs(alone).max()


def test_further_evaluations_are_shown_the_image_of_the_one_before(device, calibration, rows):
    """The image is given as a noisy image, with the precision of its own errors."""
    network = random_network(2)
    wanted = expected(network, calibration, rows)
    reduced = calibration.reduce(rows)
    scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
    for _ in range(2):
        square = np.square(wanted[1]).mean(axis=1)
        precision = np.divide(scale**2, square, out=np.zeros_like(square), where=square > 0)
        wanted = expected(network, calibration, rows, wanted[0].astype(np.float32), precision.astype(np.float32))
    loop = loop_of(device, calibration, network, rows, evaluations=3)
    loop()
    for found, one in zip((loop.image, loop.std, loop.quantiles), wanted, strict=True):
        agree(found, one, 2e-3)
    assert loop.precision[0] > 0
    assert loop.precision[1] == 0


def test_the_trained_network(device, calibration, rows):
    network = trained_network()
    loop = loop_of(device, calibration, network, rows[:1])
    loop()
    image, std, _ = expected(network, calibration, rows[:1])
    agree(loop.image, image, 5e-3)
    agree(loop.std, std, 2e-2)


def test_a_frame_depends_neither_on_its_batch_nor_on_tiles_nor_on_the_order_of_threads(
    kernel_folder, device, calibration, rows
):
    network = random_network(1)
    whole = loop_of(device, calibration, network, rows)
    whole()
    small, backwards = ShimDevice(kernel_folder), ShimDevice(kernel_folder, backwards=True)
    small.multiprocessors = 1
    for one, sides in ((device, (5, 2)), (small, (10, 5)), (backwards, (5, 2))):
        alone = loop_of(one, calibration, network, rows[2:])
        assert tuple(side for side, _ in alone._tiles[0]) == sides
        alone()
        np.testing.assert_array_equal(alone.image[0], whole.image[2])
        np.testing.assert_array_equal(alone.std[0], whole.std[2])


def test_broken_signals_show(device, calibration, rows):
    broken = rows.copy()
    broken[0, 3] = np.nan
    loop = loop_of(device, calibration, random_network(2), broken)
    loop()
    assert np.isnan(loop.image[0]).all()
    assert np.isfinite(loop.image[1:]).all()


def test_a_frame_is_one_graph_of_counted_nodes(monkeypatch, kernel_folder, calibration, rows):
    """At most 80 nodes for the trained network, because at 1.3 us each they should take a tenth of a millisecond."""
    gpu = fake_cuda.install(monkeypatch, kernel_folder, devices=2)
    network, device = random_network(3), CupyDevice(1)
    loop = loop_of(device, calibration, network, rows[:1])
    lane = CapturedFrames(device, {"signals": loop.signals}, loop, loop.outputs)
    block = ["project", "fine", "coarse"]
    assert gpu.captured == [
        ["copy", "reduce", "prepare", "plan", *block[:2], *block[:2], *block, "image", "copy", "copy", "copy", "copy"]
    ]
    lane.given["signals"][:] = rows[:1]
    lane.submit()
    found = lane.collect()
    for name, wanted in zip(("image", "std"), expected(network, calibration, rows[:1]), strict=False):
        agree(found[name], wanted, 1e-3)
    for config in (PosteriorConfig(), PosteriorConfig(blocks=28, coarse_every=3), trained_network().config):
        per_block = [1 + len(config.residual_blocks(k)) for k in range(config.blocks)]
        assert sum(per_block) + 9 <= 80


def test_what_the_kernels_are_not_written_for_is_refused(device, calibration):
    with pytest.raises(ModelError, match=r"widths \[\(24, 32\)\].* kernels are written for"):
        Weights.upload(parameters(random_network(1, width=24)), device)


def test_shared_memory_of_a_large_plane_is_what_every_gpu_has():
    """44 x 44 voxels of rank 700 stay within the default limit of a thread block."""
    needed = [plan_shared(700), *(fine_shared(side, 700) for side in FINE), *map(coarse_shared, COARSE)]
    assert max(needed) <= SHARED_LIMIT


def test_few_frames_take_small_tiles_and_many_take_large_ones():
    steps = {side: fine_steps(side) for side in FINE}
    assert tiling(steps, (19, 19), 1, 1, 132) == (5, 16)
    assert tiling(steps, (19, 19), 1, 512, 132) == (10, 4)
    steps = {side: coarse_steps(side) for side in COARSE}
    assert tiling(steps, (10, 10), 1, 1, 132) == (2, 25)
    assert tiling(steps, (10, 10), 1, 512, 132) == (5, 4)
