"""The whole frame on a GPU: signals into pinned memory, one graph launch, image out.

Each number of frames that is reconstructed at once has a lane of its own, `CapturedFrames`: buffers allocated once, a
stream, and everything between host signals and host images captured into one CUDA graph. Batches of other sizes are
padded with empty frames; many frames go through two lanes of the largest size by turns, so that one's transfers overlap
the other's work.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.denoiser import Evaluator
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.kernels.capture import Capture, CapturedFrames
from mpi_fast.kernels.launch import Array, Device, Graph
from mpi_fast.kernels.loop import Loop
from mpi_fast.kernels.prepare import STATISTICS
from mpi_fast.kernels.table import consensus_table, step_table
from mpi_fast.pipelines import Frames, Sampling
from mpi_fast.pipelines.failures import device_errors
from mpi_fast.schedule import SDES

BATCHES = (1, 8, 64, 512)
SNR, FLOOR = STATISTICS.index("snr_db"), STATISTICS.index("noise_floor")
LONGEST_CAPTURE = 64  # evaluations of the network; a graph of more has too many nodes to pay


class DeviceEvaluator(Evaluator, Protocol):
    """A network on a GPU whose evaluations can be recorded."""

    def record(self, work: Callable[[], None]) -> Graph:
        """See `capture.Recorder`."""
        ...


class DeviceEngine(Protocol):
    """A network that can be bound to buffers of a device."""

    name: str

    def fits(self, frames: int, samples: int) -> bool:
        """Whether it can be bound so."""
        ...

    def bind(
        self, frames: int, samples: int, device: Device, sigmas: Sequence[float], *, relative: bool = False
    ) -> DeviceEvaluator:
        """Buffers on a device, used on its stream.

        ``sigmas`` are the noise levels of the evaluations, in the order in which they come round; with ``relative``,
        relative to what ``sigma`` holds at the first.
        """
        ...


class DeviceLoop:
    """See `Pipeline`.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    sampling : Sampling
        How to sample.
    sigma_range : (float, float)
        Noise levels that the network was trained for.
    make_engine : callable
        The network; called while the device is the current one.
    open_device : callable
        A device with a stream of its own, for each lane.
    batches : sequence of int
        Numbers of frames to keep a lane for.
    longest_capture : int
        Evaluations of the network that a graph may have; loops of more run launch by launch.

    Raises
    ------
    DeviceError
        When the GPU, its memory or a library fails, here or in a call.
    """

    def __init__(
        self,
        calibration: Calibration,
        sampling: Sampling,
        sigma_range: tuple[float, float],
        make_engine: Callable[[], DeviceEngine],
        open_device: Callable[[], Device],
        batches: Sequence[int] = BATCHES,
        longest_capture: int = LONGEST_CAPTURE,
    ) -> None:
        sde = SDES[sampling.sde](*sigma_range)
        self._table = step_table(sampling.sampler, sde, sampling.steps, sampling.guidance, sampling.strength)
        self._consensus = consensus_table(sampling.consensus, calibration.grid) if sampling.consensus else None
        self._calibration, self._sampling = calibration, sampling
        self._open_device, self._longest_capture = open_device, longest_capture
        self._lanes: dict[tuple[int, int], tuple[CapturedFrames, Loop]] = {}
        with device_errors():
            self._device = open_device()
            with self._device.active():
                self._engine = make_engine()
            self._batches = [size for size in sorted(batches) if self._engine.fits(size, sampling.samples)]
            if not self._batches:
                raise InputError(f"{self._engine.name}: not for {sampling.samples} samples a frame, expected fewer")
            self.batch = self._batches[-1]
            self._index = self._device.upload(np.flatnonzero(calibration.selection))
            self._lane(1, 0)

    @property
    def name(self) -> str:
        """What computes, and whether a frame is one graph."""
        return f"{self._engine.name} on {self._device.name}, {self.graphs[self._batches[0]]}"

    @property
    def graphs(self) -> dict[int, Capture]:
        """Whether frames are one CUDA graph, by how many there are at once, for those numbers that were needed."""
        return {size: lane.state for (size, _), (lane, _) in self._lanes.items()}

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        frames, voxels = len(rows), self._calibration.num_voxels
        out = Frames(*np.empty((2, frames, voxels), np.float32), *np.empty((2, frames), np.float32))
        with device_errors():
            busy: deque[tuple[CapturedFrames, slice]] = deque()
            for turn, start in enumerate(range(0, frames, self.batch)):
                part = slice(start, min(start + self.batch, frames))
                if len(busy) == 2:
                    _collect(out, *busy.popleft())
                count = part.stop - part.start
                lane, _ = self._lane(count, turn % 2)
                lane.given["signals"][:count], lane.given["signals"][count:] = rows[part], 0
                lane.submit()
                busy.append((lane, part))
            while busy:
                _collect(out, *busy.popleft())
        return out

    def on_device(self, signals: Array) -> Frames:
        """From and to arrays of the device; nobody looks at them on the way, so NaN comes out as NaN.

        Parameters
        ----------
        signals : as `Calibration.rows` takes them, on the device
            They may still be in the making on their library's current stream; what this returns is done.

        Raises
        ------
        MismatchError
            For channels, samples, frequencies or rows other than the calibration's.
        InputError
            For signals on another device.
        """
        with device_errors():
            adopted = self._device.adopt(signals)
            with self._device.active():
                rows = self._select(adopted)
            shapes = [(len(rows), self._calibration.num_voxels)] * 2 + [(len(rows),)] * 2
            image, std, snr_db, floor = (self._device.empty(shape, np.float32) for shape in shapes)
            out = Frames(image, std, snr_db, floor)
            self._device.wait()
            for start in range(0, len(rows), self.batch):
                part = slice(start, min(start + self.batch, len(rows)))
                lane, loop = self._lane(part.stop - part.start, 0)
                _between(lane, loop, rows[part], Frames(*(array[part] for array in out[:4])))
        return out

    def _select(self, signals: Array) -> Array:
        """Selected rows (F, M), as `Calibration.rows` does."""
        calibration = self._calibration
        if signals.ndim == 3 and signals.dtype.kind == "f":
            signals = np.fft.rfft(signals, axis=-1)
        if signals.ndim == 3 and signals.shape[1:] == calibration.selection.shape:
            signals = signals.reshape(len(signals), -1)[:, self._index]
        if signals.ndim != 2 or signals.dtype.kind != "c" or signals.shape[1] != calibration.num_rows:
            raise MismatchError(
                f"signals {signals.dtype} {signals.shape} on the GPU: the calibration has (channels, frequencies) "
                f"{calibration.selection.shape} and {calibration.num_rows} selected rows"
            )
        return signals.astype(np.complex64)

    def _lane(self, frames: int, turn: int) -> tuple[CapturedFrames, Loop]:
        """The lane of the smallest batch that holds so many frames, and what it runs."""
        size = next(size for size in self._batches if size >= frames)
        key = size, turn if size == self.batch else 0
        if key not in self._lanes:
            self._lanes[key] = self._open_lane(size)
        return self._lanes[key]

    def _open_lane(self, frames: int) -> tuple[CapturedFrames, Loop]:
        device = self._open_device()
        with device.active():
            evaluator = self._bind(frames, self._sampling.samples, device, self._table)
            consensus, evaluations = None, len(self._table)
            if self._consensus is not None:
                consensus = self._bind(frames, 1, device, self._consensus), self._consensus
                evaluations += len(self._consensus)
            loop = Loop(device, self._calibration, evaluator, self._table, self._sampling.seed, consensus=consensus)
        long = evaluations > self._longest_capture
        refused = f"{evaluations} evaluations, of which a graph may have {self._longest_capture}" if long else ""
        outputs = {"image": loop.image, "std": loop.std, "statistics": loop.statistics}
        return CapturedFrames(device, {"signals": loop.signals}, loop, outputs, evaluator, refused), loop

    def _bind(self, frames: int, samples: int, device: Device, table: NDArray[np.void]) -> DeviceEvaluator:
        evaluated = table[:-1]
        factors = evaluated["level_factor"]
        if factors.any():
            return self._engine.bind(frames, samples, device, (factors / factors[0]).tolist(), relative=True)
        return self._engine.bind(frames, samples, device, evaluated["sigma"].tolist())


def _between(lane: CapturedFrames, loop: Loop, rows: Array, out: Frames) -> None:
    """Frames from and to arrays of the device; done when this returns."""
    frames, device = len(rows), loop.device
    with device.active():
        loop.signals[:frames], loop.signals[frames:] = rows, 0
        lane.between()
        found = {"image": loop.image, "std": loop.std, "statistics": loop.statistics}
        for target, source in zip(out[:4], _frames(frames, found)[:4], strict=True):
            target[...] = source
    device.wait()


def _frames(frames: int, found: Mapping[str, Array]) -> Frames:
    """The first of a lane's frames."""
    statistics = found["statistics"]
    return Frames(found["image"][:frames], found["std"][:frames], statistics[SNR, :frames], statistics[FLOOR, :frames])


def _collect(out: Frames, lane: CapturedFrames, part: slice) -> None:
    for target, source in zip(out[:4], _frames(part.stop - part.start, lane.collect())[:4], strict=True):
        target[part] = source
