"""Device arrays through which the kernels exchange data, allocated once for a fixed number of frames."""

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
        Device on which the arrays are allocated.
    basis : Basis
        Singular value decomposition of the calibration.
    weights : Weights
        Weights of the network.
    frames : int
        Number of frames F.

    Attributes
    ----------
    y : (F, R) float32
        Reduced signals, scaled to images of root-mean-square about one.
    statistics : (5, F) float32
        Rows as in `prepare.STATISTICS`.
    condition : (F, 10, N) float32
        Estimates from the signals alone, see `prepare.prepare`.
    spread, share : (F, K) float32
        Standard deviation of the image that a block combines with the signals, and the share of the current image in
        it; see plan.cu.
    deviation : (F, K, N) float32
        Posterior standard deviation of each voxel in each block, see plan.cu.
    modulation : (F, C) float32
        Gains and shifts of the residual blocks, see plan.cu.
    mean, base : (F, N) float32
        Image before and after the data-consistency step of a block.
    features : tuple of two (F, N, 16) float32
        Features, read from one array and written to the other in turn, because tiles read pixels of their neighbours.
    active : (F, N, 16) float32
        SiLU of the last features of a block, the input of its head.
    image, std : (F, N) float32
        Posterior mean and expected error of each voxel, in the unit of the calibration.
    quantiles : (F, 2) float32
        Quantiles of the errors in units of std, see `uncertainty`.
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
