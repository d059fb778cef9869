"""A whole reconstruction on a device: buffers allocated once, then nothing but launches, fit for one CUDA graph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.denoiser import Evaluator
from mpi_fast.errors import InputError
from mpi_fast.kernels.finish import finish
from mpi_fast.kernels.guided_step import State, guided_step
from mpi_fast.kernels.launch import Device, Scalar
from mpi_fast.kernels.prepare import STATISTICS, Basis, prepare
from mpi_fast.kernels.reduce import Projection, reduce


class Loop:
    """Frames of one calibration, in batches of one size: write `signals`, call, read `image`, `std`, `statistics`.

    A call enqueues on the device's stream and returns. It allocates nothing and reads nothing back, so it can be
    captured if the evaluator can; a captured call follows what is later written to `signals` and `table`.

    Parameters
    ----------
    device : Device
        Where.
    calibration : Calibration
        Of the scanner.
    evaluator : Evaluator
        The network, bound to arrays of the device for F frames with S samples each.
    table : (evaluations + 1,) STEP
        Of `table.step_table`.
    seed : int
        Of the noise.
    spectra : bool
        Signals are spectra (F, C, K) instead of selected rows (F, M).
    scalar, channels_last
        Type and layout of the evaluator's tensors.

    Attributes
    ----------
    signals : (F, M) or (F, C, K) complex64
    image, std : (F, N) float32
    statistics : (5, F) float32
        See `prepare.STATISTICS`.
    state : State
        ``state.x`` holds the samples, for images of root-mean-square about one.
    """

    def __init__(
        self,
        device: Device,
        calibration: Calibration,
        evaluator: Evaluator,
        table: NDArray[np.void],
        seed: int = 0,
        *,
        spectra: bool = False,
        scalar: Scalar = "float32",
        channels_last: bool = False,
    ) -> None:
        frames, batch = len(evaluator.condition), len(evaluator.image)
        if batch % frames:
            raise InputError(f"evaluator: {batch} images for {frames} frames, expected the same number for each")
        voxels, rank, samples = calibration.num_voxels, calibration.rank, batch // frames
        self._device, self._evaluator, self._seed, self._steps = device, evaluator, seed, len(table)
        self._projection = Projection.upload(calibration, device)
        self._basis = Basis.upload(calibration, device)
        self._table = device.upload(_bytes(table))
        shape = calibration.selection.shape if spectra else (calibration.num_rows,)
        self.signals = device.empty((frames, *shape), np.complex64)
        self._reduced = device.empty((frames, rank), np.float64)
        self._energy = device.empty((frames,), np.float64)
        self._y = device.empty((frames, rank), np.float32)
        self.statistics = device.empty((len(STATISTICS), frames), np.float32)
        self._layout: dict[str, Any] = {"scalar": scalar, "channels_last": channels_last}
        of_two, of_three = ((voxels, 2), (voxels, 3)) if channels_last else ((2, voxels), (3, voxels))
        self._condition = evaluator.condition.reshape(frames, *of_two)
        self.state = State(
            device.empty((frames, samples, voxels), np.float32),
            device.empty((frames, samples, voxels), np.float32),
            evaluator.image.reshape(batch, *of_three),
            evaluator.sigma,
            **self._layout,
        )
        self.image = device.empty((frames, voxels), np.float32)
        self.std = device.empty((frames, voxels), np.float32)

    def schedule(self, table: NDArray[np.void]) -> None:
        """Take another table of as many rows, in a captured graph, too.

        Raises
        ------
        InputError
            For another number of rows.
        """
        if len(table) != self._steps:
            raise InputError(f"table of {len(table)} rows, expected {self._steps}: their number is the graph's shape")
        self._device.copy(_bytes(table), self._table)

    def __call__(self) -> None:
        """Enqueue the reconstruction of `signals`."""
        device, basis, evaluator = self._device, self._basis, self._evaluator
        noise = self.statistics[STATISTICS.index("noise")]
        reduce(device, self._projection, self.signals, self._reduced, self._energy)
        prepare(device, basis, self._reduced, self._energy, self._y, self.statistics, self._condition, **self._layout)
        guided_step(device, basis, self._table, 0, self._seed, self._y, noise, None, self.state)
        evaluator.encode()
        for number in range(1, self._steps):
            denoised = evaluator.denoise().reshape(-1, basis.shape[0])
            guided_step(device, basis, self._table, number, self._seed, self._y, noise, denoised, self.state)
        finish(device, self.state.x, self.statistics, self.image, self.std)


def _bytes(table: NDArray[np.void]) -> NDArray[np.uint8]:
    """Rows of a table as CuPy can hold them."""
    return table.view(np.uint8).reshape(len(table), -1)
