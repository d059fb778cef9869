"""`Combination` of planes: kernels compute their products with V themselves, and only project.cu has its own launch."""

from typing import Any

import numpy as np

from mpi_fast.calibration import Calibration
from mpi_fast.kernels.buffers import Buffers
from mpi_fast.kernels.combine import Combination
from mpi_fast.kernels.launch import NOTHING, Array, Device, Kernel
from mpi_fast.kernels.prepare import Basis, prepare
from mpi_fast.kernels.weights import Weights

PROJECT_THREADS, PROJECT_COLUMNS = 256, 8  # threads and columns of a thread block, as in project.cu


class PlaneCombination(Combination):
    """Launches prepare -> plan -> project for each network block -> image; see `Combination`."""

    def __init__(
        self, device: Device, calibration: Calibration, basis: Basis, weights: Weights, buffers: Buffers
    ) -> None:
        super().__init__(device, calibration, basis, weights, buffers)
        # V in addition to V^T, because project.cu reads it along its rows.
        self._basis = device.upload(np.ascontiguousarray(calibration.basis, dtype=np.float32))
        self.residual = device.empty((self.frames, self.rank), np.float32)

    def prepare(self, reduced: Array, energy: Array) -> None:
        """See `Combination`."""
        buffers = self.buffers
        prepare(self.device, self.basis, reduced, energy, buffers.y, buffers.statistics, buffers.condition)

    def plan(self, precision: Array) -> None:
        """See `Combination`."""
        self.launch_plan(precision, NOTHING)

    def combine(self, block: int, noisy: Array) -> None:
        """See `Combination`."""
        buffers, head, plane = self.buffers, self.head_before(block), self.slices[0]
        arguments = (
            buffers.statistics,
            buffers.y,
            self.basis.singular_values,
            self._basis,
            buffers.deviation,
            buffers.active,
            head.weights,
            head.bias,
            buffers.share,
            noisy,
            buffers.base,
            np.int32(block),
            np.int32(self.blocks),
            np.int32(self.rank),
            np.int32(plane.rows),
            np.int32(plane.columns),
            buffers.mean,
            self.residual,
        )
        grid, shared = (-(-self.rank // PROJECT_COLUMNS), self.frames), 4 * (self.voxels + PROJECT_THREADS)
        self.device.launch(Kernel("project"), grid, PROJECT_THREADS, shared, arguments)

    def finish(self) -> None:
        """See `Combination`."""
        self.launch_image(NOTHING)

    @property
    def changes(self) -> tuple[Any, ...]:
        """See `Combination`."""
        return NOTHING, self.residual, self.basis.singular_values, self.basis.transposed

    @property
    def fine_rank(self) -> int:
        """See `Combination`."""
        return self.rank
