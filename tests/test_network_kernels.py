"""The network's kernels, built by g++, against PyTorch; their loop as one graph, on the stand-in for CUDA.

Tolerances. Factors of convolutions are rounded to float16, 2^-11 of themselves; everything else is float32. A block
adds ``d F`` to what the signals say, and d is what they leave open, so that rounding of F, a few of 2^-11 of its size,
is less in the image; over blocks it accumulates as a root. With random weights, whose F is as large as d, images agree
to within 1e-3 of their largest value, and those of the trained network to within 5e-3.
"""

import fake_cuda
import numpy as np
import pytest
import torch
from kernel_cases import host
from network_cases import expected, loop_of, parameters, random_network, trained_network
from shim import COMPILER, ShimDevice
from torch.nn import functional

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, ModelError
from mpi_fast.kernels.capture import CapturedFrames
from mpi_fast.kernels.cupy_device import CupyDevice
from mpi_fast.kernels.launch import SHARED_LIMIT
from mpi_fast.kernels.posterior import PosteriorLoop, plan_shared
from mpi_fast.kernels.tiles import COARSE, FINE, coarse_shared, coarse_steps, fine_shared, fine_steps, tiling
from mpi_fast.kernels.weights import Weights, pack
from mpi_fast.likelihood import signal_scale
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.training.network import PosteriorConfig

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++ on Linux")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kernels")


@pytest.fixture
def device(folder):
    device = ShimDevice(folder)
    yield device
    device.check_guards()


@pytest.fixture(scope="module")
def rows(true_rows):
    phantoms = generate(["tumours", "resolution", "dots"], 3, seed=21).reshape(3, -1)
    rows = add_noise(phantoms @ true_rows.T, 25.0, np.random.default_rng(2)).astype(np.complex64)
    rows[1] = 0
    return rows


def agree(found, wanted, tolerance):
    largest = np.abs(wanted).max()
    assert largest > 0
    assert np.abs(host(found) - wanted).max() <= tolerance * largest


def of_grid(grid, rank, seed=0):
    """A scanner with random singular vectors."""
    rng = np.random.default_rng(seed)
    voxels, rows = grid[0] * grid[1], rank + 20
    matrix = rng.standard_normal((1, rows, voxels)) + 1j * rng.standard_normal((1, rows, voxels))
    smooth = np.exp(-np.linspace(0, 4, rows))[None, :, None]
    return Calibration.from_arrays(matrix * smooth, None, grid, (1.0, 1.0))


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
    """With the same roundings: what is left is the order of sums, and now and then a rounding that falls otherwise."""
    voxels, frames = grid[0] * grid[1], 2
    calibration = of_grid(grid, min(6, voxels))
    network, number, rng = random_network(3), 2, np.random.default_rng(1)
    device.multiprocessors = multiprocessors  # large tiles where there are few
    loop = PosteriorLoop(device, calibration, Weights.upload(parameters(network), device), frames)
    block, corrector = loop._weights.blocks[number], network.correctors[number]

    def random(array, smallest=-np.inf):
        array[...] = np.maximum(rng.standard_normal(array.shape), smallest)
        return torch.from_numpy(array.copy())

    before, after = loop._features
    features, modulation, mean = random(before), random(loop._modulation), random(loop._mean)
    residual, spread, noise = random(loop._residual), random(loop._spread, 0.5), random(loop.statistics, 0.5)[0]
    deviation = random(loop._deviation, 0.1)[:, number]
    r = torch.stack([spread[:, number], 4 * spread[:, number]], dim=1)[:, :, None]
    s, v = (torch.from_numpy(one) for one in (calibration.singular_values, calibration.basis))
    changed = (r * r * s / (r * r * s * s + noise[:, None, None] ** 2) * residual[:, None]) @ v.T
    seen = torch.asinh(changed / deviation[:, None])
    injected = torch.cat([mean[:, None], seen, 0.5 * torch.log(deviation / r[:, 0])[:, None]], dim=1)

    def planes(tensor):
        return tensor.reshape(frames, *grid, -1).permute(0, 3, 1, 2)

    def convolved(x, layer, **options):
        return functional.conv2d(x.half().float(), layer.weight.half().float(), layer.bias, **options)

    def residual_block(x, layers, gain, shift):
        hidden = convolved(functional.silu(x), layers.first, padding=1) * (1 + gain) + shift
        return x + convolved(functional.silu(hidden), layers.second, padding=1)

    parts = modulation[:, block.offset : block.offset + 128, None, None].split([16, 16, 48, 48], dim=1)
    with torch.inference_mode():
        x = planes(features) + convolved(injected.reshape(frames, 4, *grid), corrector.inject, padding=1)
        fine = residual_block(x, corrector.stages[0], *parts[:2])
        stage = corrector.stages[1]
        half = convolved(functional.silu(fine), stage.down, stride=2, padding=1)
        up = convolved(functional.silu(residual_block(half, stage.block, *parts[2:])), stage.up)
        coarse = fine + functional.pixel_shuffle(up, 2)[:, :, : grid[0], : grid[1]]

    def flat(tensor):
        return tensor.permute(0, 2, 3, 1).reshape(frames, voxels, 16).numpy()

    loop._fine(number, block, before, after)
    agree(loop._base, (mean + changed[:, 0]).numpy(), 1e-5)
    agree(after, flat(fine), 1e-3)
    loop._coarse(block, block.coarse, after, before)
    agree(before, flat(coarse), 1e-3)
    agree(loop._active, functional.silu(torch.from_numpy(flat(coarse))).numpy(), 1e-3)


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
    image = np.random.default_rng(3).uniform(size=(2, grid[0] * grid[1]))
    rows = add_noise(image @ calibration.matrix.T, 20.0, np.random.default_rng(4)).astype(np.complex64)
    network = random_network(2)
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
        agree(found, one, 1e-3)
    alone, _, _ = expected(network, calibration, rows)
    assert np.abs(alone - wanted[0]).max() > 0.05 * np.abs(alone).max()


def test_further_evaluations_are_shown_the_image_of_the_one_before(device, calibration, rows):
    """As a noisy one, of the precision that its own errors have."""
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
    folder, device, calibration, rows
):
    network = random_network(1)
    whole = loop_of(device, calibration, network, rows)
    whole()
    small, backwards = ShimDevice(folder), ShimDevice(folder, backwards=True)
    small.multiprocessors = 1
    for one, sides in ((device, (5, 2)), (small, (10, 5)), (backwards, (5, 2))):
        alone = loop_of(one, calibration, network, rows[2:])
        assert (alone._fine_tiles[0], alone._coarse_tiles[0]) == sides
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


def test_a_frame_is_one_graph_of_counted_nodes(monkeypatch, folder, calibration, rows):
    """At most 80 for the network as it is trained: the aim at 1.3 us a node is a tenth of a millisecond."""
    gpu = fake_cuda.install(monkeypatch, folder, devices=2)
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
    with pytest.raises(ModelError, match=r"widths \[\(24, 48\)\].* kernels are written for"):
        Weights.upload(parameters(random_network(1, width=24)), device)


def test_volumes_are_refused(device):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((1, 40, 27)) + 1j * rng.standard_normal((1, 40, 27))
    volume = Calibration.from_arrays(matrix, None, (3, 3, 3), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"\(3, 3, 3\).* for planes"):
        PosteriorLoop(device, volume, Weights.upload(parameters(random_network(1)), device), 1)


def test_shared_memory_of_a_large_plane_is_what_every_gpu_has():
    """44 x 44 voxels of rank 700: within what a block gets without asking for more."""
    needed = [plan_shared(700), *(fine_shared(side, 700) for side in FINE), *map(coarse_shared, COARSE)]
    assert max(needed) <= SHARED_LIMIT


def test_few_frames_take_small_tiles_and_many_take_large_ones():
    steps = {side: fine_steps(side) for side in FINE}
    assert tiling(steps, (19, 19), 1, 132) == (5, 16)
    assert tiling(steps, (19, 19), 512, 132) == (10, 4)
    steps = {side: coarse_steps(side) for side in COARSE}
    assert tiling(steps, (10, 10), 1, 132) == (2, 25)
    assert tiling(steps, (10, 10), 512, 132) == (5, 4)
