"""The network on a device, from signals to images and their uncertainty, for planes and volumes.

A reconstruction is a sequence of launches that can be captured as one CUDA graph:

    reduce -> prepare -> plan -> [project -> fine (-> coarse)] for each block -> image                      planes
    reduce -> prepare, white -> plan, variances
           -> [current, residual, changes -> fine (-> coarse)] for each block -> image, tails               volumes

With 28 blocks these are 60 launches for planes, because convolutions and the operations around them are fused. Some
networks also correct at half resolution (coarse). `combine.Combination` contains all launches that differ between
planes and volumes. A further evaluation starts with refine, which turns the image into a noisy image, and continues at
plan.
"""

from typing import NamedTuple

import numpy as np

from mpi_fast.calibration import Calibration
from mpi_fast.grids import is_plane
from mpi_fast.kernels.buffers import Buffers
from mpi_fast.kernels.combine import Combination
from mpi_fast.kernels.combine_planes import PlaneCombination
from mpi_fast.kernels.combine_volumes import VolumeCombination
from mpi_fast.kernels.launch import NOTHING, Array, Device, Kernel
from mpi_fast.kernels.prepare import Basis
from mpi_fast.kernels.reduce import Projection, reduce
from mpi_fast.kernels.slices import Slices
from mpi_fast.kernels.tiles import COARSE, FINE, coarse_shared, coarse_steps, fine_shared, fine_steps, tiling
from mpi_fast.kernels.weights import WIDTH, Block, Convolutions, Weights

REFINE_THREADS = 256  # threads of a block, as in refine.cu
TILE_THREADS = 256  # threads of a block, as in fine.cu and coarse.cu


class PosteriorLoop:
    """Reconstructs frames of one calibration, in batches of a fixed size.

    Write `signals`, call, and read `image`, `std`, `quantiles` and `statistics`. A call enqueues its work on the
    device's stream and returns. It allocates no memory and does not wait for the device.

    Parameters
    ----------
    device : Device
        Device that runs the kernels.
    calibration : Calibration
        Calibration of a plane or a volume.
    weights : Weights
        Weights of the network, on the device.
    frames : int
        Number of frames F.
    guided : bool
        Whether each frame has a noisy image in addition to its signals, in `noisy` and `precision`.
    evaluations : int
        Evaluations of the network for each frame. Each one after the first takes the image of the one before as a noisy
        image; see `refinement`.

    Raises
    ------
    DeviceError
        At the first call, if a thread block needs more shared memory than the device has.

    Attributes
    ----------
    device : Device
        Device that runs the kernels.
    signals : (F, M) complex64
        Selected rows, background-corrected.
    image, std : (F, N) float32
        Posterior mean and expected error of each voxel, in the unit of the calibration.
    quantiles : (F, 2) float32
        Quantiles of the errors in units of std, see `uncertainty`.
    statistics : (5, F) float32
        Rows as in `prepare.STATISTICS`.
    noisy : (F, N) float32, or None
        Noisy images ``x_t = x + sigma_t n`` in the unit of the calibration.
    precision : (F,) float32, or None
        Their precision ``1 / sigma_t^2`` for images in units of `likelihood.signal_scale`; zero for frames without a
        noisy image.
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
        """The arrays that a call writes, by name."""
        return {"image": self.image, "std": self.std, "quantiles": self.quantiles, "statistics": self.statistics}

    def __call__(self) -> None:
        """Enqueue the reconstruction of `signals`."""
        self.begin()
        self.evaluate(self._guided)
        for _ in range(self._evaluations - 1):
            self._refine()
            self.evaluate(True)

    def begin(self) -> None:
        """Enqueue the steps that depend only on the signals: reduction, noise, scale and linear estimates."""
        reduce(self.device, self._projection, self.signals, self._reduced, self._energy)
        self._combination.prepare(self._reduced, self._energy)

    def evaluate(self, shown: bool) -> None:
        """Enqueue one evaluation of the network after `begin`; if ``shown``, with `noisy` and `precision` as inputs."""
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
        """Tilings of a network block's slices."""
        sized = self._frames, self.device.multiprocessors
        fine = tiling({side: fine_steps(side) for side in FINE}, cut.grid, cut.count, *sized)
        return Tilings(fine, tiling({side: coarse_steps(side) for side in COARSE}, cut.half, cut.count, *sized))


class Tilings(NamedTuple):
    """Side of the tiles, and number of tiles that cover all slices of an image, at full and at half resolution."""

    fine: tuple[int, int]
    coarse: tuple[int, int]
