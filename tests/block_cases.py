"""Comparison of one network block, computed by the kernels and by PyTorch, for planes and volumes."""

import numpy as np
import torch
from kernel_cases import host
from network_cases import of_grid, parameters, random_network
from torch.nn import functional

from mpi_fast.constants import PLANES, orientation
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.weights import Weights
from mpi_fast.training.network import from_slices, of_slices, to_slices


def agree(found, wanted, tolerance):
    """Assert that the largest difference is within the tolerance, relative to the largest value."""
    largest = np.abs(wanted).max()
    assert largest > 0
    assert np.abs(host(found) - wanted).max() <= tolerance * largest


def check_block(device, grid, number):
    """Compare with the same roundings; the remaining differences are the order of sums and few other roundings."""
    voxels, frames = int(np.prod(grid)), 2
    calibration = of_grid(grid, min(6, voxels))
    network, rng = random_network(number + 1), np.random.default_rng(1)  # so that the block has a coarse part
    loop = PosteriorLoop(device, calibration, Weights.upload(parameters(network), device), frames)
    block, corrector, buffers = loop._weights.blocks[number], network.correctors[number], loop._buffers
    shape = (*(1,) * (3 - len(grid)), *grid)
    turn = orientation(number) if shape[0] > 1 else PLANES[0]

    def random(array, smallest=-np.inf):
        array[...] = np.maximum(rng.standard_normal(array.shape), smallest)
        return torch.from_numpy(array.copy())

    before, after = buffers.features
    features, modulation, mean = random(before), random(buffers.modulation), random(buffers.mean)
    spread, noise = random(buffers.spread, 0.5), random(buffers.statistics, 0.5)[0]
    deviation = random(buffers.deviation, 0.1)[:, number]
    r = torch.stack([spread[:, number], 4 * spread[:, number]], dim=1)[:, :, None]
    if shape[0] > 1:
        changed = random(loop._combination._changes)
    else:
        residual = random(loop._combination.residual)
        s, v = (torch.from_numpy(one) for one in (calibration.singular_values, calibration.basis))
        changed = (r * r * s / (r * r * s * s + noise[:, None, None] ** 2) * residual[:, None]) @ v.T
    seen = torch.asinh(changed / deviation[:, None])
    injected = torch.cat([mean[:, None], seen, 0.5 * torch.log(deviation / r[:, 0])[:, None]], dim=1)

    def sliced(tensor):  # (F, C, N) -> (F * slices, C, rows, columns)
        whole = tensor.reshape(frames, -1, *shape)
        return to_slices(whole if shape[0] > 1 else whole[:, :, 0], turn)

    def convolved(x, layer, **options):
        return functional.conv2d(x.half().float(), layer.weight.half().float(), layer.bias, **options)

    def residual_block(x, layers, gain, shift):
        hidden = convolved(functional.silu(x), layers.first, padding=1) * (1 + gain) + shift
        return x + convolved(functional.silu(hidden), layers.second, padding=1)

    parts = modulation[:, block.offset : block.offset + 96, None, None]
    parts = of_slices(parts, shape[turn[0] - 1]).split([16, 16, 32, 32], dim=1)
    with torch.inference_mode():
        x = sliced(features.permute(0, 2, 1)) + convolved(sliced(injected), corrector.inject, padding=1)
        fine = residual_block(x, corrector.stages[0], *parts[:2])
        stage = corrector.stages[1]
        half = convolved(functional.silu(fine), stage.down, stride=2, padding=1)
        up = convolved(residual_block(half, stage.block, *parts[2:]), stage.up)
        coarse = fine + functional.pixel_shuffle(up, 2)[:, :, : fine.shape[2], : fine.shape[3]]

    def flat(tensor):
        return from_slices(tensor, turn, shape).reshape(frames, 16, voxels).permute(0, 2, 1).numpy()

    loop._fine(number, block, before, after)
    agree(buffers.base, (mean + changed[:, 0]).numpy(), 1e-5)
    agree(after, flat(fine), 1e-3)
    loop._coarse(number, block, block.coarse, after, before)
    agree(before, flat(coarse), 1e-3)
    agree(buffers.active, functional.silu(torch.from_numpy(flat(coarse))).numpy(), 1e-3)
