"""The network on a device: signals to images and their uncertainty, of planes and volumes, fit for one CUDA graph.

    reduce -> prepare -> plan -> [project -> fine (-> coarse)] for each block -> image                      planes
    reduce -> prepare, white -> plan, variances
           -> [current, residual, changes -> fine (-> coarse)] for each block -> image, tails               volumes

With 28 blocks, ten of which correct at half resolution, too, these are 70 launches of a plane: a convolution has no
launch of its own, nor has anything around one. What volumes need otherwise is all in `combination.Combination`. A
further evaluation, of what `refine` makes of the image, begins at plan.
"""

from typing import NamedTuple

import numpy as np

from mpi_fast.calibration import Calibration
from mpi_fast.grids import is_plane
from mpi_fast.kernels.buffers import Buffers
from mpi_fast.kernels.combination import Combination
from mpi_fast.kernels.launch import NOTHING, Array, Device, Kernel
from mpi_fast.kernels.planes import PlaneCombination
from mpi_fast.kernels.prepare import Basis
from mpi_fast.kernels.reduce import Projection, reduce
from mpi_fast.kernels.slices import Slices
from mpi_fast.kernels.tiles import COARSE, FINE, coarse_shared, coarse_steps, fine_shared, fine_steps, tiling
from mpi_fast.kernels.volumes import VolumeCombination
from mpi_fast.kernels.weights import WIDTH, Block, Convolutions, Weights

REFINE_THREADS = 256  # of a block, as in refine.cu
TILE_THREADS = 256  # as in fine.cu and coarse.cu


class PosteriorLoop:
    """Frames of one calibration, in batches of one size: write `signals`, call, read `image`, `std`, `statistics`.

    A call enqueues on the device's stream and returns; it allocates nothing and reads nothing back.

    Parameters
    ----------
    device : Device
        Where.
    calibration : Calibration
        Of a plane or a volume.
    weights : Weights
        Of the network, there.
    frames : int
        F.
    guided : bool
        Each frame has a noisy image beside its signals: `noisy` and `precision` are read, too.
    evaluations : int
        Of the network: after the first, each is shown the image of the one before as a noisy one, by its own errors.

    Raises
    ------
    DeviceError
        At the first call, where a block of threads would need more shared memory than the device has.

    Attributes
    ----------
    device : Device
    signals : (F, M) complex64
    image, std : (F, N) float32
    quantiles : (F, 2) float32
        Of the errors next to std, see `uncertainty`.
    statistics : (5, F) float32
        See `prepare.STATISTICS`.
    noisy : (F, N) float32, or None
        ``x_t = x + sigma_t n`` in the unit of the calibration.
    precision : (F,) float32, or None
        ``1 / sigma_t^2`` for images in units of `likelihood.signal_scale`; zero where there is no noisy image.
    """

    def __init__(
        self,
        device: Device,
        calibration: Calibration,
        weights: Weights,
        frames: int,
        guided: bool = False,
        evaluations: int = 1,
    ) -> None:
        self.device, self._weights, self._frames = device, weights, frames
        self._guided, self._evaluations = guided, evaluations
        rank, voxels = calibration.rank, calibration.num_voxels
        self._projection = Projection.upload(calibration, device)
        basis = Basis.upload(calibration, device)
        self.signals = device.empty((frames, calibration.num_rows), np.complex64)
        self._reduced = device.empty((frames, rank), np.float64)
        self._energy = device.empty((frames,), np.float64)
        self._buffers = buffers = Buffers(device, basis, weights, frames)
        kind = PlaneCombination if is_plane(calibration.grid) else VolumeCombination
        self._combination: Combination = kind(device, calibration, basis, weights, buffers)
        self._widths = basis.widths
        self._slices = self._combination.slices
        self._tiles = [self._tilings(cut) for cut in self._slices]
        self.image, self.std, self.quantiles = buffers.image, buffers.std, buffers.quantiles
        self.statistics = buffers.statistics
        shown = guided or evaluations > 1
        self.noisy = device.empty((frames, voxels), np.float32) if shown else None
        self.precision = device.empty((frames,), np.float32) if shown else None

    @property
    def outputs(self) -> dict[str, Array]:
        """What a call writes, by name."""
        return {"image": self.image, "std": self.std, "quantiles": self.quantiles, "statistics": self.statistics}

    def __call__(self) -> None:
        """Enqueue the reconstruction of `signals`."""
        self.begin()
        self.evaluate(self._guided)
        for _ in range(self._evaluations - 1):
            self._refine()
            self.evaluate(True)

    def begin(self) -> None:
        """Enqueue what `signals` say by themselves."""
        reduce(self.device, self._projection, self.signals, self._reduced, self._energy)
        self._combination.prepare(self._reduced, self._energy)

    def evaluate(self, shown: bool) -> None:
        """Enqueue one evaluation of the network, of what `begin` left and, if ``shown``, of `noisy` and `precision`."""
        noisy, precision = (self.noisy, self.precision) if shown else (NOTHING, NOTHING)
        self._combination.plan(precision)
        before, after = self._buffers.features
        for number, block in enumerate(self._weights.blocks):
            self._combination.combine(number, noisy)
            self._fine(number, block, before, after)
            before, after = after, before
            if block.coarse is not None:
                self._coarse(number, block, block.coarse, before, after)
                before, after = after, before
        self._combination.finish()

    def _refine(self) -> None:
        arrays = self.statistics, self.image, self.std, np.int32(self._combination.voxels), self.noisy, self.precision
        self.device.launch(Kernel("refine"), (self._frames, 1), REFINE_THREADS, 8 * REFINE_THREADS, arrays)

    def _fine(self, number: int, block: Block, before: Array, after: Array) -> None:
        combination, buffers = self._combination, self._buffers
        arguments = (
            buffers.statistics,
            *combination.changes,
            buffers.spread,
            buffers.deviation,
            buffers.condition,
            self._widths,
            buffers.mean,
            before,
            block.fine.weights,
            block.fine.bias,
            buffers.modulation,
            np.int32(self._weights.modulations),
            np.int32(block.offset),
            np.int32(number),
            np.int32(len(self._weights.blocks)),
            np.int32(combination.fine_rank),
            np.int32(combination.voxels),
            *self._slices[number].arguments,
            buffers.base,
            after,
            NOTHING if block.coarse else buffers.active,
        )
        side, tiles = self._tiles[number].fine
        kernel, shared = Kernel("fine", (("TILE", str(side)),)), fine_shared(side, combination.fine_rank)
        self.device.launch(kernel, (tiles, self._frames), TILE_THREADS, shared, arguments)

    def _coarse(self, number: int, block: Block, convolutions: Convolutions, before: Array, after: Array) -> None:
        arguments = (
            before,
            convolutions.weights,
            convolutions.bias,
            self._buffers.modulation,
            np.int32(self._weights.modulations),
            np.int32(block.offset + 2 * WIDTH),
            np.int32(self._combination.voxels),
            *self._slices[number].arguments,
            after,
            self._buffers.active,
        )
        side, tiles = self._tiles[number].coarse
        kernel = Kernel("coarse", (("TILE", str(side)),))
        self.device.launch(kernel, (tiles, self._frames), TILE_THREADS, coarse_shared(side), arguments)

    def _tilings(self, cut: Slices) -> "Tilings":
        """Of a block's slices."""
        sized = self._frames, self.device.multiprocessors
        fine = tiling({side: fine_steps(side) for side in FINE}, cut.grid, cut.count, *sized)
        return Tilings(fine, tiling({side: coarse_steps(side) for side in COARSE}, cut.half, cut.count, *sized))


class Tilings(NamedTuple):
    """Sides of tiles at full and at half resolution, and how many cover all slices of an image."""

    fine: tuple[int, int]
    coarse: tuple[int, int]
