"""How blocks of the network combine an image with the signals: what planes and volumes need different launches for.

V of a plane is small: one block of threads reads it in a microsecond or two, so that whatever needs it reads it once
more rather than wait for another launch. V of a volume is a hundred times larger. It is read by all multiprocessors
together, once for each thing that is made of it, and those have launches of their own.
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

PLAN_THREADS = 512  # of a block, as in plan.cu
IMAGE_THREADS = 128  # as in image.cu


class Combination(ABC):
    """Launches for frames of one calibration, around the convolutions of fine.cu and coarse.cu.

    Parameters
    ----------
    device : Device
        Where.
    calibration : Calibration
        Of which images.
    basis : Basis
        Of the calibration, there.
    weights : Weights
        Of the network, there.
    buffers : Buffers
        Of the frames.
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
        """Enqueue what frames say by themselves, of `reduce.reduce`'s (F, R) and (F,) float64."""

    @abstractmethod
    def plan(self, precision: Array) -> None:
        """Enqueue what does not depend on images; ``precision`` (F,) float32 of noisy ones, or `NOTHING`."""

    @abstractmethod
    def combine(self, block: int, noisy: Array) -> None:
        """Enqueue what a block is given: the image so far, and what the signals say of it.

        ``noisy`` (F, N) float32 are images in the unit of the calibration, or `NOTHING`.
        """

    @abstractmethod
    def finish(self) -> None:
        """Enqueue what the last block's features say: image, deviation and quantiles."""

    @property
    @abstractmethod
    def changes(self) -> tuple[Any, ...]:
        """What the signals change, for fine.cu: changes, or residual, singular values, V^T of which it makes them."""

    @property
    @abstractmethod
    def fine_rank(self) -> int:
        """How many columns of V fine.cu sums up."""

    def head_before(self, block: int) -> Convolutions:
        """The head that makes the image which a block is given; the first block is given none."""
        return self.weights.blocks[max(block - 1, 0)].head

    def launch_plan(self, precision: Array, left_to_others: Array) -> None:
        """Enqueue plan.cu: with the deviations, or with ``left_to_others`` what they are made of."""
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
            left_to_others,
        )
        grid = self.blocks, self.frames
        self.device.launch(Kernel("plan"), grid, PLAN_THREADS, plan_shared(self.rank), arguments)

    def launch_image(self, pooled: Array) -> None:
        """Enqueue image.cu: with the quantiles, or with ``pooled`` what they are made of."""
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
    """Shared memory of a block of plan.cu, in bytes."""
    return 8 * PLAN_THREADS + 4 * (8 + 2 * EMBEDDING + rank)


def image_parts(voxels: int) -> int:
    """Blocks of threads of image.cu for each frame."""
    return -(-voxels // IMAGE_THREADS)
