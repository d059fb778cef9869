"""A whole reconstruction on a device: buffers allocated once, then nothing but launches, fit for one CUDA graph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.denoiser import Evaluator
from mpi_fast.errors import InputError
from mpi_fast.guidance import CONDITION_CHANNELS, Likelihood
from mpi_fast.kernels.finish import finish
from mpi_fast.kernels.guided_step import State, guided_step
from mpi_fast.kernels.launch import STORAGE, Array, Device, Scalar
from mpi_fast.kernels.prepare import STATISTICS, Basis, prepare
from mpi_fast.kernels.reduce import Projection, reduce


class Loop:
    """Frames of one calibration, in batches of one size: write `signals`, call, read `image`, `std`, `statistics`.

    A call enqueues on the device's stream and returns. It allocates nothing and reads nothing back, so it can be
    captured if the evaluator can; a captured call follows what is later written to `signals`.

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
    consensus : (Evaluator, (evaluations + 1,) STEP), optional
        The network again, bound for the F frames with one sample each, as a denoiser that sees no signals, and
        `table.consensus_table`: the image is the one that is agreed on. Without, it is the mean of the samples.
    spectra : bool
        Signals are spectra (F, C, K) instead of selected rows (F, M).
    scalar, channels_last
        Type and layout of the evaluators' tensors.

    Attributes
    ----------
    device : Device
    signals : (F, M) or (F, C, K) complex64
    image, std : (F, N) float32
    statistics : (7, F) float32
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
        consensus: tuple[Evaluator, NDArray[np.void]] | None = None,
        spectra: bool = False,
        scalar: Scalar = "float32",
        channels_last: bool = False,
    ) -> None:
        frames, voxels, rank = len(evaluator.condition), calibration.num_voxels, calibration.rank
        self.device = device
        self._projection = Projection.upload(calibration, device)
        self._basis = Basis.upload(calibration, device)
        shape = calibration.selection.shape if spectra else (calibration.num_rows,)
        self.signals = device.empty((frames, *shape), np.complex64)
        self._reduced = device.empty((frames, rank), np.float64)
        self._energy = device.empty((frames,), np.float64)
        self._y = device.empty((frames, rank), np.float32)
        self.statistics = device.empty((len(STATISTICS), frames), np.float32)
        self._layout: dict[str, Any] = {"scalar": scalar, "channels_last": channels_last}
        shape = (voxels, CONDITION_CHANNELS) if channels_last else (CONDITION_CHANNELS, voxels)
        self._condition = evaluator.condition.reshape(frames, *shape)
        self._sampler = _Evaluations(device, self._basis, evaluator, table, seed, self._layout)
        self.state = self._sampler.state
        self.image = device.empty((frames, voxels), np.float32)
        self.std = device.empty((frames, voxels), np.float32)
        self._consensus = None
        if consensus is not None:
            self._consensus = _Evaluations(device, self._basis, *consensus, seed, self._layout)
            if self._consensus.state.x.shape != (frames, 1, voxels):
                raise InputError(f"consensus: x {self._consensus.state.x.shape}, expected one image of {frames} frames")
            self._show_nothing(consensus[0])

    @property
    def outputs(self) -> dict[str, Array]:
        """What a call writes, by name."""
        return {"image": self.image, "std": self.std, "statistics": self.statistics}

    def __call__(self) -> None:
        """Enqueue the reconstruction of `signals`."""
        device, basis, samples, consensus = self.device, self._basis, self.state.x, self._consensus
        noise = self.statistics[STATISTICS.index("noise")]
        reduce(device, self._projection, self.signals, self._reduced, self._energy)
        prepare(device, basis, self._reduced, self._energy, self._y, self.statistics, self._condition, **self._layout)
        self._sampler.evaluator.encode()
        self._sampler(self._y, noise)
        if consensus is None:
            finish(device, samples, self.statistics, image=self.image, deviation=self.std)
            return
        agreed = consensus.state.x[:, 0]
        finish(device, samples, self.statistics, mean=agreed)
        consensus(self._y, noise)
        finish(device, samples, self.statistics, agreed=agreed, image=self.image, deviation=self.std)

    def _show_nothing(self, evaluator: Evaluator) -> None:
        """Encode, once and for all, what no signals say of an image."""
        frames, voxels = self.image.shape
        condition = Likelihood.of_nothing(frames, voxels).condition()
        if self._layout["channels_last"]:
            condition = condition.swapaxes(1, 2)
        stored = _as_stored(np.ascontiguousarray(condition), self._layout["scalar"])
        self.device.copy(stored.reshape(evaluator.condition.shape), evaluator.condition)
        evaluator.encode()
        self.device.wait()


class _Evaluations:
    """A network, the table of what follows each of its evaluations, and the state between them."""

    def __init__(
        self,
        device: Device,
        basis: Basis,
        evaluator: Evaluator,
        table: NDArray[np.void],
        seed: int,
        layout: dict[str, Any],
    ) -> None:
        frames, batch, voxels = len(evaluator.condition), len(evaluator.image), basis.shape[0]
        if batch % frames:
            raise InputError(f"evaluator: {batch} images for {frames} frames, expected the same number for each")
        self._device, self._basis, self._seed = device, basis, seed
        self.evaluator, self.table = evaluator, device.upload(_bytes(table))
        self.state = State(
            device.empty((frames, batch // frames, voxels), np.float32),
            device.empty((frames, batch // frames, voxels), np.float32),
            evaluator.image.reshape(batch, *((voxels, 3) if layout["channels_last"] else (3, voxels))),
            evaluator.sigma,
            **layout,
        )

    def __call__(self, y: Array, noise: Array) -> None:
        """Enqueue all of them, for signals that are there and a condition that is encoded."""
        device, basis, table, seed = self._device, self._basis, self.table, self._seed
        if hasattr(self.evaluator, "restart"):  # it counts its evaluations, and the last call may have failed
            self.evaluator.restart()
        guided_step(device, basis, table, 0, seed, y, noise, None, self.state)
        for number in range(1, len(table)):
            denoised = self.evaluator.denoise().reshape(-1, basis.shape[0])
            guided_step(device, basis, table, number, seed, y, noise, denoised, self.state)


def _as_stored(values: NDArray[np.float32], scalar: Scalar) -> NDArray[Any]:
    """Numbers as the network's tensors hold them."""
    if scalar == "bfloat16":  # the upper half of a binary32, rounded; NumPy has no such type
        return ((values.view(np.uint32) + 0x8000) >> 16).astype(np.uint16)
    return values.astype(STORAGE[scalar])


def _bytes(table: NDArray[np.void]) -> NDArray[np.uint8]:
    """Rows of a table as CuPy can hold them."""
    return table.view(np.uint8).reshape(len(table), -1)
