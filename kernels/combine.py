"""The steps of the network that combine images with signals, whose launches differ between planes and volumes.

V of a plane is small: a thread block reads it in one or two microseconds. So every kernel that needs products with V
computes them itself, which takes less time than another launch. V of a volume is a hundred times larger. So each
product with it has a launch of its own, in which all multiprocessors share the reading of V.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from mpi_fast.calibration import Calibration
from mpi_fast.kernels.buffers import Buffers
from mpi_fast.kernels.launch import Array, Device, Kernel
from mpi_fast.kernels.prepare import Basis
from mpi_fast.kernels.slices import slices
from mpi_fast.kernels.weights import EMBEDDING, WIDTH, Convolutions, Weights

PLAN_THREADS = 512  # threads of a block, as in plan.cu
IMAGE_THREADS = 128  # as in image.cu


class Combination(ABC):
    """Launches of all kernels that use the signals, for frames of one calibration.

    Only the convolutions of fine.cu and coarse.cu are launched elsewhere, by `posterior.PosteriorLoop`.

    Parameters
    ----------
    device : Device
        Device that runs the kernels.
    calibration : Calibration
        Calibration of the scanner.
    basis : Basis
        Singular value decomposition of the calibration, on the device.
    weights : Weights
        Weights of the network, on the device.
    buffers : Buffers
        Arrays of the frames.
    """

    def __init__(
        self, device: Device, calibration: Calibration, basis: Basis, weights: Weights, buffers: Buffers
    ) -> None:
        self.device, self.basis, self.weights, self.buffers = device, basis, weights, buffers
        (self.voxels, self.rank), self.blocks = basis.shape, len(weights.blocks)
        self.frames = int(buffers.y.shape[0])
        self.slices = [slices(calibration.grid, block) for block in range(self.blocks)]

    @abstractmethod
    def prepare(self, reduced: Array, energy: Array) -> None:
        """Enqueue noise, scale and estimates from the signals alone (`prepare.prepare`).

        Parameters
        ----------
        reduced, energy : (F, R), (F,) float64
            Output of `reduce.reduce`.
        """

    @abstractmethod
    def plan(self, precision: Array) -> None:
        """Enqueue all quantities of an evaluation that do not depend on images, see plan.cu.

        Parameters
        ----------
        precision : (F,) float32
            Precision of the noisy images; `NOTHING` if there are none.
        """

    @abstractmethod
    def combine(self, block: int, noisy: Array) -> None:
        """Enqueue the steps before a block's convolutions: the current image, its residual and, for volumes, changes.

        Parameters
        ----------
        block : int
            Number of the network block, counted from 0.
        noisy : (F, N) float32
            Noisy images in the unit of the calibration; `NOTHING` if there are none.
        """

    @abstractmethod
    def finish(self) -> None:
        """Enqueue image, standard deviation and quantiles, from the features of the last block."""

    @property
    @abstractmethod
    def changes(self) -> tuple[Any, ...]:
        """Arguments of fine.cu for the changes of an image by the signals: changes, residual, singular values and V^T.

        Either the first or the other three are given, from which fine.cu computes the changes; the rest is `NOTHING`.
        """

    @property
    @abstractmethod
    def fine_rank(self) -> int:
        """Number of columns of V over which fine.cu sums; 0 if the changes are computed elsewhere."""

    def head_before(self, block: int) -> Convolutions:
        """The head of the block before, whose output is the image at the start of this block; unused by the first."""
        return self.weights.blocks[max(block - 1, 0)].head

    def launch_plan(self, precision: Array, explained: Array) -> None:
        """Enqueue plan.cu, which writes the deviations or, if ``explained`` is not `NOTHING`, S g into it."""
        weights, basis, buffers = self.weights, self.basis, self.buffers
        arguments = (
            buffers.statistics,
            buffers.condition,
            basis.widths,
            precision,
            basis.singular_values,
            basis.transposed,
            *weights.embedding,
            weights.offsets,
            np.float64(basis.power),
            np.int32(self.rank),
            np.int32(self.voxels),
            buffers.spread,
            buffers.share,
            buffers.deviation,
            buffers.modulation,
            explained,
        )
        grid = self.blocks, self.frames
        self.device.launch(Kernel("plan"), grid, PLAN_THREADS, plan_shared(self.rank), arguments)

    def launch_image(self, pooled: Array) -> None:
        """Enqueue image.cu, which writes quantiles or, if ``pooled`` is not `NOTHING`, sums of features into it."""
        buffers, head = self.buffers, self.weights.blocks[-1].head
        arguments = (
            buffers.statistics,
            buffers.deviation,
            buffers.base,
            buffers.active,
            head.weights,
            head.bias,
            *self.weights.tails,
            np.int32(self.blocks),
            np.int32(self.voxels),
            *self.slices[-1].arguments,
            buffers.image,
            buffers.std,
            buffers.quantiles,
            pooled,
        )
        grid = image_parts(self.voxels), self.frames
        self.device.launch(Kernel("image"), grid, IMAGE_THREADS, 4 * (IMAGE_THREADS + WIDTH), arguments)


def plan_shared(rank: int) -> int:
    """Shared memory of a thread block of plan.cu, in bytes."""
    return 8 * PLAN_THREADS + 4 * (8 + 2 * EMBEDDING + rank)


def image_parts(voxels: int) -> int:
    """Number of thread blocks of image.cu for each frame."""
    return -(-voxels // IMAGE_THREADS)
