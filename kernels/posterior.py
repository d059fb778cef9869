"""The network on a device: signals to image and uncertainty of planes, fit for one CUDA graph.

    reduce -> prepare -> plan -> [project -> fine (-> coarse)] for each block -> image

With 28 blocks, ten of which correct at half resolution, too, these are 70 launches: a convolution has no launch of its
own, nor has anything around one. A further evaluation, of what `refine` makes of the image, begins at plan.
"""

import numpy as np

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.kernels.launch import Array, Device, Kernel
from mpi_fast.kernels.prepare import CONDITION_CHANNELS, STATISTICS, Basis, prepare
from mpi_fast.kernels.reduce import Projection, reduce
from mpi_fast.kernels.tiles import COARSE, FINE, coarse_shared, coarse_steps, fine_shared, fine_steps, tiling
from mpi_fast.kernels.weights import EMBEDDING, WIDTH, Block, Convolutions, Weights
from mpi_fast.uncertainty import LEVELS

PLAN_THREADS = 512  # of a block, as in plan.cu
PROJECT_THREADS, PROJECT_COLUMNS = 256, 8  # of a block, as in project.cu
REFINE_THREADS = 256  # of a block, as in refine.cu
TILE_THREADS, IMAGE_THREADS = 256, 128  # as in fine.cu and coarse.cu, and in image.cu
NOTHING = np.uintp(0)


class PosteriorLoop:
    """Frames of one calibration, in batches of one size: write `signals`, call, read `image`, `std`, `statistics`.

    A call enqueues on the device's stream and returns; it allocates nothing and reads nothing back.

    Parameters
    ----------
    device : Device
        Where.
    calibration : Calibration
        Of a plane.
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
    InputError
        For the calibration of a volume.

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
        if len(calibration.grid) != 2:
            raise InputError(f"grid {calibration.grid}: the GPU's kernels are for planes")
        self.device, self._weights, self._frames = device, weights, frames
        self._guided, self._evaluations = guided, evaluations
        self._rows, self._columns = calibration.grid
        sized = frames, device.multiprocessors
        half = -(-self._rows // 2), -(-self._columns // 2)
        self._fine_tiles = tiling({side: fine_steps(side) for side in FINE}, calibration.grid, *sized)
        self._coarse_tiles = tiling({side: coarse_steps(side) for side in COARSE}, half, *sized)
        voxels, rank, blocks = calibration.num_voxels, calibration.rank, len(weights.blocks)
        self._projection = Projection.upload(calibration, device)
        self._basis = Basis.upload(calibration, device)
        self.signals = device.empty((frames, calibration.num_rows), np.complex64)
        self._reduced = device.empty((frames, rank), np.float64)
        self._energy = device.empty((frames,), np.float64)
        self._y = device.empty((frames, rank), np.float32)
        self.statistics = device.empty((len(STATISTICS), frames), np.float32)
        self._condition = device.empty((frames, CONDITION_CHANNELS, voxels), np.float32)
        self._modulations = int(weights.embedding[7].shape[0])
        self._spread = device.empty((frames, blocks), np.float32)
        self._share = device.empty((frames, blocks), np.float32)
        self._deviation = device.empty((frames, blocks, voxels), np.float32)
        self._modulation = device.empty((frames, self._modulations), np.float32)
        self._base = device.empty((frames, voxels), np.float32)
        self._mean = device.empty((frames, voxels), np.float32)
        self._residual = device.empty((frames, rank), np.float32)
        # Tiles read their neighbours' pixels, so nothing is written where it is read.
        self._features = tuple(device.empty((frames, voxels, WIDTH), np.float32) for _ in range(2))
        self._active = device.empty((frames, voxels, WIDTH), np.float32)
        self.image = device.empty((frames, voxels), np.float32)
        self.std = device.empty((frames, voxels), np.float32)
        self.quantiles = device.empty((frames, len(LEVELS)), np.float32)
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
        device, basis = self.device, self._basis
        reduce(device, self._projection, self.signals, self._reduced, self._energy)
        prepare(device, basis, self._reduced, self._energy, self._y, self.statistics, self._condition)

    def evaluate(self, shown: bool) -> None:
        """Enqueue one evaluation of the network, of what `begin` left and, if ``shown``, of `noisy` and `precision`."""
        noisy, precision = (self.noisy, self.precision) if shown else (NOTHING, NOTHING)
        self._plan(precision)
        before, after = self._features
        for number, block in enumerate(self._weights.blocks):
            self._project(number, noisy)
            self._fine(number, block, before, after)
            before, after = after, before
            if block.coarse is not None:
                self._coarse(block, block.coarse, before, after)
                before, after = after, before
        self._finish()

    def _refine(self) -> None:
        arrays = self.statistics, self.image, self.std, np.int32(self._basis.shape[0]), self.noisy, self.precision
        self.device.launch(Kernel("refine"), (self._frames, 1), REFINE_THREADS, 8 * REFINE_THREADS, arrays)

    def _plan(self, precision: Array) -> None:
        weights, basis, (voxels, rank) = self._weights, self._basis, self._basis.shape
        arguments = (
            self.statistics,
            self._condition,
            basis.widths,
            precision,
            basis.singular_values,
            basis.transposed,
            *weights.embedding,
            weights.offsets,
            np.float64(basis.power),
            np.int32(rank),
            np.int32(voxels),
            self._spread,
            self._share,
            self._deviation,
            self._modulation,
        )
        grid = len(weights.blocks), self._frames
        self.device.launch(Kernel("plan"), grid, PLAN_THREADS, plan_shared(rank), arguments)

    def _project(self, number: int, noisy: Array) -> None:
        basis, (voxels, rank) = self._basis, self._basis.shape
        head = self._weights.blocks[max(number - 1, 0)].head
        arguments = (
            self.statistics,
            self._y,
            basis.singular_values,
            basis.basis,
            self._deviation,
            self._active,
            head.weights,
            head.bias,
            self._share,
            noisy,
            self._base,
            np.int32(number),
            np.int32(len(self._weights.blocks)),
            np.int32(rank),
            np.int32(self._rows),
            np.int32(self._columns),
            self._mean,
            self._residual,
        )
        grid = -(-rank // PROJECT_COLUMNS), self._frames
        self.device.launch(Kernel("project"), grid, PROJECT_THREADS, 4 * (voxels + PROJECT_THREADS), arguments)

    def _fine(self, number: int, block: Block, before: Array, after: Array) -> None:
        basis, (_, rank) = self._basis, self._basis.shape
        arguments = (
            self.statistics,
            self._residual,
            basis.singular_values,
            basis.transposed,
            self._spread,
            self._deviation,
            self._condition,
            basis.widths,
            self._mean,
            before,
            block.fine.weights,
            block.fine.bias,
            self._modulation,
            np.int32(self._modulations),
            np.int32(block.offset),
            np.int32(number),
            np.int32(len(self._weights.blocks)),
            np.int32(rank),
            np.int32(self._rows),
            np.int32(self._columns),
            self._base,
            after,
            NOTHING if block.coarse else self._active,
        )
        side, tiles = self._fine_tiles
        kernel = Kernel("fine", (("TILE", str(side)),))
        self.device.launch(kernel, (tiles, self._frames), TILE_THREADS, fine_shared(side, rank), arguments)

    def _coarse(self, block: Block, convolutions: Convolutions, before: Array, after: Array) -> None:
        arguments = (
            before,
            convolutions.weights,
            convolutions.bias,
            self._modulation,
            np.int32(self._modulations),
            np.int32(block.offset + 2 * WIDTH),
            np.int32(self._rows),
            np.int32(self._columns),
            after,
            self._active,
        )
        side, tiles = self._coarse_tiles
        kernel = Kernel("coarse", (("TILE", str(side)),))
        self.device.launch(kernel, (tiles, self._frames), TILE_THREADS, coarse_shared(side), arguments)

    def _finish(self) -> None:
        voxels, head = self._basis.shape[0], self._weights.blocks[-1].head
        arguments = (
            self.statistics,
            self._deviation,
            self._base,
            self._active,
            head.weights,
            head.bias,
            *self._weights.tails,
            np.int32(len(self._weights.blocks)),
            np.int32(self._rows),
            np.int32(self._columns),
            self.image,
            self.std,
            self.quantiles,
        )
        grid = -(-voxels // IMAGE_THREADS), self._frames
        self.device.launch(Kernel("image"), grid, IMAGE_THREADS, 4 * (IMAGE_THREADS + WIDTH), arguments)


def plan_shared(rank: int) -> int:
    """Shared memory of a block of plan.cu, in bytes."""
    return 8 * PLAN_THREADS + 4 * (8 + 2 * EMBEDDING + rank)
