"""Networks, calibrations and expected results for the comparison of kernels with PyTorch, for g++ and for a GPU."""

import numpy as np
import torch
from kernel_cases import random_parameters

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.weights import Weights
from mpi_fast.likelihood import signal_presence, signal_scale
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.training.checkpoint import load_trained
from mpi_fast.training.combination import Signals
from mpi_fast.training.network import PosteriorConfig, PosteriorNetwork


def random_network(blocks, seed=0, **config):
    """A network with the parameters of `kernel_cases.random_parameters`, unlike the default also at half resolution."""
    config = {"coarse_every": 3, **config}
    network = PosteriorNetwork(PosteriorConfig(blocks=blocks, **config)).eval()
    drawn = random_parameters(blocks, seed, **config)
    network.load_state_dict({name: torch.from_numpy(array) for name, array in drawn.items()})
    return network


def trained_network():
    """The network of the package."""
    return load_trained(Bundle.open().checkpoint()).network


def parameters(network):
    return {name: value.numpy() for name, value in network.state_dict().items()}


def expected(network, calibration, rows, noisy=None, precision=None):
    """Image, deviation (F, N) and quantiles (F, 2) by PyTorch in float32."""
    reduced = calibration.reduce(rows)
    scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
    presence = signal_presence(reduced.y, reduced.noise)
    unit = np.where(scale > 0, scale, 1).astype(np.float32)
    level = np.where(scale > 0, reduced.noise / unit, 1).astype(np.float32)
    scanner = calibration.singular_values, calibration.basis
    given = [reduced.y / unit[:, None], level, *scanner]
    signals = Signals.of(*(torch.from_numpy(np.ascontiguousarray(one, np.float32))[None] for one in given))
    guide = [] if noisy is None else [torch.from_numpy(noisy / unit[:, None])[None], torch.from_numpy(precision)[None]]
    with torch.inference_mode():
        found = network(signals, (*(1,) * (3 - len(calibration.grid)), *calibration.grid), *guide)
    image = np.maximum(found.image[0].numpy(), 0) * (presence * scale)[:, None]
    return image, np.exp(found.log_error[0].numpy()) * scale[:, None], np.exp(found.log_quantiles[0].numpy())


def of_grid(grid, rank, seed=0):
    """A scanner of planes or volumes with random singular vectors."""
    rng = np.random.default_rng(seed)
    voxels, rows = int(np.prod(grid)), rank + 20
    matrix = rng.standard_normal((1, rows, voxels)) + 1j * rng.standard_normal((1, rows, voxels))
    smooth = np.exp(-np.linspace(0, 4, rows))[None, :, None]
    return Calibration.from_arrays(matrix * smooth, None, grid, (1.0,) * len(grid))


def three_frames(true_rows):
    """Selected rows of three noisy frames (3, M) complex64, the second one zero, from the noise-free matrix."""
    phantoms = generate(["tumours", "resolution", "dots"], 3, seed=21).reshape(3, -1)
    rows = add_noise(phantoms @ true_rows.T, 25.0, np.random.default_rng(2)).astype(np.complex64)
    rows[1] = 0
    return rows


def rows_of(calibration, frames, snr=20.0):
    """Noisy signals of random images."""
    images = np.random.default_rng(3).uniform(size=(frames, calibration.num_voxels))
    return add_noise(images @ calibration.matrix.T, snr, np.random.default_rng(4)).astype(np.complex64)


def loop_of(device, calibration, network, rows, noisy=None, precision=None, evaluations=1):
    """A loop whose inputs have been copied to the device."""
    weights = Weights.upload(parameters(network), device)
    loop = PosteriorLoop(device, calibration, weights, len(rows), noisy is not None, evaluations)
    device.copy(np.ascontiguousarray(rows, np.complex64), loop.signals)
    if noisy is not None:
        device.copy(noisy, loop.noisy)
        device.copy(precision, loop.precision)
    return loop
