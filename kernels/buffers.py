"""What kernels hand on to each other, for frames of one number: arrays of a device, allocated once."""

import numpy as np

from mpi_fast.kernels.launch import Array, Device
from mpi_fast.kernels.prepare import CONDITION_CHANNELS, STATISTICS, Basis
from mpi_fast.kernels.weights import WIDTH, Weights
from mpi_fast.uncertainty import LEVELS


class Buffers:
    """Arrays of F frames with N voxels and rank R, for a network of K blocks with C gains and shifts.

    Parameters
    ----------
    device : Device
        Where.
    basis : Basis
        Of the calibration.
    weights : Weights
        Of the network.
    frames : int
        F.

    Attributes
    ----------
    y : (F, R) float32
    statistics : (5, F) float32
        See `prepare.STATISTICS`.
    condition : (F, 10, N) float32
        What the signals alone say, see `prepare.prepare`.
    spread, share : (F, K) float32
    deviation : (F, K, N) float32
    modulation : (F, C) float32
        See plan.cu.
    mean, base : (F, N) float32
        The image that a block is given, and what its convolutions correct.
    features : two (F, N, 16) float32
        By turns: tiles read their neighbours' pixels, so nothing is written where it is read.
    active : (F, N, 16) float32
        SiLU of a block's last features, for its head.
    image, std : (F, N) float32
    quantiles : (F, 2) float32
    """

    def __init__(self, device: Device, basis: Basis, weights: Weights, frames: int) -> None:
        (voxels, rank), blocks = basis.shape, len(weights.blocks)

        def empty(*shape: int) -> Array:
            return device.empty((frames, *shape), np.float32)

        self.y = empty(rank)
        self.statistics = device.empty((len(STATISTICS), frames), np.float32)
        self.condition = empty(CONDITION_CHANNELS, voxels)
        self.spread, self.share = empty(blocks), empty(blocks)
        self.deviation = empty(blocks, voxels)
        self.modulation = empty(weights.modulations)
        self.mean, self.base = empty(voxels), empty(voxels)
        self.features = empty(voxels, WIDTH), empty(voxels, WIDTH)
        self.active = empty(voxels, WIDTH)
        self.image, self.std = empty(voxels), empty(voxels)
        self.quantiles = empty(len(LEVELS))
