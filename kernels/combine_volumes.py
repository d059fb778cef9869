"""`Combination` of volumes: each product with V has a launch, in which all multiprocessors read V^T once together."""

from typing import Any

import numpy as np

from mpi_fast.calibration import Calibration
from mpi_fast.kernels.buffers import Buffers
from mpi_fast.kernels.combine import Combination, image_parts
from mpi_fast.kernels.launch import NOTHING, Array, Device, Kernel
from mpi_fast.kernels.prepare import CONDITION_CHANNELS, Basis, prepare
from mpi_fast.kernels.voxel_sums import launch_sums
from mpi_fast.kernels.weights import WIDTH, Weights

CURRENT_THREADS = 128  # threads of a block, as in current.cu
RESIDUAL_THREADS, RANKS, PARTS = 256, 8, 16  # as in residual.cu
TAILS_THREADS = 32  # threads of a block, as in tails.cu
GROUP = 28  # network blocks for which variances.cu reads V once, as in plan.cu and variances.cu
VIEWS = 2  # number of spreads for which a network block gets changes
TOGETHER = 1, 4  # frames that share one reading of V: for a single frame, and for several


class VolumeCombination(Combination):
    """Launches for volumes, see `Combination`.

    They are prepare, white -> plan, variances -> current, residual, changes for each network block -> image, tails.
    """

    def __init__(
        self, device: Device, calibration: Calibration, basis: Basis, weights: Weights, buffers: Buffers
    ) -> None:
        super().__init__(device, calibration, basis, weights, buffers)
        self._together = TOGETHER[self.frames > 1]
        self._groups = -(-self.blocks // GROUP)

        def empty(*shape: int) -> Array:
            return device.empty((self.frames, *shape), np.float32)

        self._factors = empty(self.rank, CONDITION_CHANNELS)
        self._explained = empty(self._groups, self.rank, GROUP)
        self._gained = empty(self.rank, VIEWS)
        self._changes = empty(VIEWS, self.voxels)
        self._pooled = empty(image_parts(self.voxels), WIDTH)

    def prepare(self, reduced: Array, energy: Array) -> None:
        """See `Combination`."""
        buffers = self.buffers
        outputs = buffers.y, buffers.statistics, buffers.condition
        prepare(self.device, self.basis, reduced, energy, *outputs, self._factors)

    def plan(self, precision: Array) -> None:
        """See `Combination`."""
        self.launch_plan(precision, self._explained)
        sizes = np.int32(self.blocks), np.int32(self.rank), np.int32(self.voxels)
        arguments = self.basis.transposed, self._explained, self.buffers.spread, *sizes, self.buffers.deviation
        launch_sums(self.device, Kernel("variances"), self.voxels, (self._groups, self.frames), GROUP, arguments)

    def combine(self, block: int, noisy: Array) -> None:
        """See `Combination`."""
        self._current(block, noisy)
        self._residual(block)
        sizes = np.int32(self.frames), np.int32(self.rank), np.int32(self.voxels)
        arguments = self.basis.transposed, self._gained, *sizes, self._changes
        sums = VIEWS * self._together
        launch_sums(self.device, self._shared("changes"), self.voxels, (1, self._parts_of_frames), sums, arguments)

    def finish(self) -> None:
        """See `Combination`."""
        self.launch_image(self._pooled)
        sizes = np.int32(image_parts(self.voxels)), np.int32(self.voxels)
        arguments = self._pooled, *self.weights.tails, *sizes, self.buffers.quantiles
        self.device.launch(Kernel("tails"), (self.frames, 1), TAILS_THREADS, 4 * WIDTH, arguments)

    @property
    def changes(self) -> tuple[Any, ...]:
        """See `Combination`."""
        return self._changes, NOTHING, NOTHING, NOTHING

    @property
    def fine_rank(self) -> int:
        """See `Combination`."""
        return 0

    def _current(self, block: int, noisy: Array) -> None:
        buffers, head = self.buffers, self.head_before(block)
        arguments = (
            buffers.statistics,
            buffers.deviation,
            buffers.active,
            head.weights,
            head.bias,
            buffers.share,
            noisy,
            buffers.base,
            np.int32(block),
            np.int32(self.blocks),
            np.int32(self.voxels),
            *self.slices[max(block - 1, 0)].arguments,
            buffers.mean,
        )
        grid = -(-self.voxels // CURRENT_THREADS), self.frames
        self.device.launch(Kernel("current"), grid, CURRENT_THREADS, 0, arguments)

    def _residual(self, block: int) -> None:
        buffers = self.buffers
        arguments = (
            buffers.statistics,
            buffers.y,
            self.basis.singular_values,
            self.basis.transposed,
            buffers.spread,
            buffers.mean,
            np.int32(block),
            np.int32(self.blocks),
            np.int32(self.frames),
            np.int32(self.rank),
            np.int32(self.voxels),
            self._gained,
        )
        grid, shared = (-(-self.rank // RANKS), self._parts_of_frames), residual_shared(self._together)
        self.device.launch(self._shared("residual"), grid, RESIDUAL_THREADS, shared, arguments)

    def _shared(self, name: str) -> Kernel:
        """The kernel of this name, compiled to read V once for several frames."""
        return Kernel(name, (("FRAMES", str(self._together)),))

    @property
    def _parts_of_frames(self) -> int:
        return -(-self.frames // self._together)


def residual_shared(frames: int) -> int:
    """Shared memory of a thread block of residual.cu for this number of frames, in bytes."""
    return 4 * RANKS * frames * (RESIDUAL_THREADS + 2 * PARTS)
