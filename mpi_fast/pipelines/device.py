"""The whole frame on a GPU: signals into pinned memory, one graph launch, image out.

Each number of frames that is reconstructed at once has a `Lane` of its own: buffers allocated once, a stream, and
everything between host signals and host images captured into one CUDA graph. Batches of other sizes are padded with
empty frames; many frames go through two lanes of the largest size by turns, so that one's transfers overlap the other's
work.
"""

import contextlib
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.denoiser import Evaluator
from mpi_fast.errors import DeviceError, InputError, MismatchError, MPIFastError
from mpi_fast.kernels.launch import Array, Device
from mpi_fast.kernels.loop import Loop
from mpi_fast.kernels.prepare import STATISTICS
from mpi_fast.kernels.table import consensus_table, step_table
from mpi_fast.pipelines import Frames, Sampling
from mpi_fast.schedule import SDES

BATCHES = (1, 8, 64, 512)
SNR, FLOOR = STATISTICS.index("snr_db"), STATISTICS.index("noise_floor")
LONGEST_CAPTURE = 64  # evaluations of the network; a graph of more has too many nodes to pay


class DeviceEvaluator(Evaluator, Protocol):
    """A network on a GPU whose evaluations can be captured."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record what ``work`` enqueues, having run before; the result enqueues the same again."""
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
        The network.
    open_device : callable
        A device with a stream of its own, for each lane.
    batches : sequence of int
        Numbers of frames to keep a lane for.

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
    ) -> None:
        sde = SDES[sampling.sde](*sigma_range)
        self._table = step_table(sampling.sampler, sde, sampling.steps, sampling.guidance, sampling.strength)
        self._consensus = consensus_table(sampling.consensus, calibration.grid) if sampling.consensus else None
        self._calibration, self._sampling = calibration, sampling
        self._open_device = open_device
        self._lanes: dict[tuple[int, int], Lane] = {}
        with device_errors():
            self._engine = make_engine()
            self._batches = [size for size in sorted(batches) if self._engine.fits(size, sampling.samples)]
            if not self._batches:
                raise InputError(f"{self._engine.name}: not for {sampling.samples} samples a frame, expected fewer")
            self.batch = self._batches[-1]
            self._device = open_device()
            self._index = self._device.upload(np.flatnonzero(calibration.selection))
            self.name = f"{self._engine.name} on {self._device.name}"
            self._lane(1, 0)

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        frames, voxels = len(rows), self._calibration.num_voxels
        out = Frames(*np.empty((2, frames, voxels), np.float32), *np.empty((2, frames), np.float32))
        with device_errors():
            busy: deque[tuple[Lane, slice]] = deque()
            for turn, start in enumerate(range(0, frames, self.batch)):
                part = slice(start, min(start + self.batch, frames))
                if len(busy) == 2:
                    _collect(out, *busy.popleft())
                lane = self._lane(part.stop - part.start, turn % 2)
                lane.submit(rows[part])
                busy.append((lane, part))
            while busy:
                _collect(out, *busy.popleft())
        return out

    def on_device(self, signals: Array) -> Frames:
        """From and to arrays of the device; nobody looks at them on the way, so NaN comes out as NaN.

        Parameters
        ----------
        signals : as `Calibration.rows` takes them, on the device
            What writes them must be done; what this returns is.

        Raises
        ------
        MismatchError
            For channels, samples, frequencies or rows other than the calibration's.
        """
        with device_errors():
            with self._device.active():
                rows = self._select(self._device.asarray(signals))
            shapes = [(len(rows), self._calibration.num_voxels)] * 2 + [(len(rows),)] * 2
            image, std, snr_db, floor = (self._device.empty(shape, np.float32) for shape in shapes)
            out = Frames(image, std, snr_db, floor)
            self._device.wait()
            for start in range(0, len(rows), self.batch):
                part = slice(start, min(start + self.batch, len(rows)))
                self._lane(part.stop - part.start, 0).on_device(rows[part], Frames(*(array[part] for array in out[:4])))
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

    def _lane(self, frames: int, turn: int) -> "Lane":
        """The lane of the smallest batch that holds so many frames."""
        size = next(size for size in self._batches if size >= frames)
        key = size, turn if size == self.batch else 0
        if key not in self._lanes:
            device = self._open_device()
            evaluator = self._bind(size, self._sampling.samples, device, self._table)
            consensus, evaluations = None, len(self._table)
            if self._consensus is not None:
                consensus = self._bind(size, 1, device, self._consensus), self._consensus
                evaluations += len(self._consensus)
            loop = Loop(device, self._calibration, evaluator, self._table, self._sampling.seed, consensus=consensus)
            self._lanes[key] = Lane(device, loop, evaluator, captured=evaluations <= LONGEST_CAPTURE)
        return self._lanes[key]

    def _bind(self, frames: int, samples: int, device: Device, table: NDArray[np.void]) -> DeviceEvaluator:
        evaluated = table[:-1]
        factors = evaluated["level_factor"]
        if factors.any():
            return self._engine.bind(frames, samples, device, (factors / factors[0]).tolist(), relative=True)
        return self._engine.bind(frames, samples, device, evaluated["sigma"].tolist())


class Lane:
    """Frames of one number, from pinned memory to pinned memory by one launch."""

    def __init__(self, device: Device, loop: Loop, evaluator: DeviceEvaluator, captured: bool) -> None:
        self._device, self._loop, self._evaluator = device, loop, evaluator
        self._signals = device.pinned(loop.signals.shape, np.complex64)
        self._results = [(array, device.pinned(array.shape, np.float32)) for array in _results(loop)]
        self._run: Callable[[], None] = self._work
        self._run_bare: Callable[[], None] | None = None if captured else loop
        for _ in range(2):  # loads kernels, and lets libraries choose theirs
            self._work()
        device.wait()
        if captured:
            self._run = self._captured(self._work)

    def submit(self, rows: NDArray[np.complex64]) -> None:
        """Enqueue the reconstruction of at most F frames; the others are empty."""
        self._signals[: len(rows)], self._signals[len(rows) :] = rows, 0
        self._run()

    def collect(self) -> tuple[Array, Array, Array]:
        """Image, deviation, statistics of what was submitted last, when it is done: buffers."""
        self._device.wait()
        image, std, statistics = (host for _, host in self._results)
        return image, std, statistics

    def on_device(self, rows: Array, out: Frames) -> None:
        """See `DeviceLoop.on_device`."""
        frames = len(rows)
        if self._run_bare is None:
            self._run_bare = self._captured(self._loop)
        with self._device.active():
            self._loop.signals[:frames], self._loop.signals[frames:] = rows, 0
            self._run_bare()
            for target, source in zip(out[:4], _frames(frames, *_results(self._loop))[:4], strict=True):
                target[...] = source
        self._device.wait()

    def _work(self) -> None:
        self._device.copy(self._signals, self._loop.signals)
        self._loop()
        for array, host in self._results:
            self._device.fetch(array, host)

    def _captured(self, work: Callable[[], None]) -> Callable[[], None]:
        try:
            return self._evaluator.capture(work)
        except Exception as error:  # of three libraries
            warnings.warn(f"no CUDA graph, so every launch is its own: {error}", RuntimeWarning, stacklevel=2)
            return work


def _results(loop: Loop) -> tuple[Array, Array, Array]:
    return loop.image, loop.std, loop.statistics


def _frames(frames: int, image: Array, std: Array, statistics: Array) -> Frames:
    """The first of a lane's frames."""
    return Frames(image[:frames], std[:frames], statistics[SNR, :frames], statistics[FLOOR, :frames])


def _collect(out: Frames, lane: Lane, part: slice) -> None:
    for target, source in zip(out[:4], _frames(part.stop - part.start, *lane.collect())[:4], strict=True):
        target[part] = source


@contextlib.contextmanager
def device_errors() -> Iterator[None]:
    """What CUDA's libraries raise, as DeviceError with one clear message; everything else passes."""
    try:
        yield
    except MPIFastError:
        raise
    except Exception as error:
        kind, text = type(error).__name__, str(error).splitlines()[0] if str(error) else "no message"
        if kind == "OutOfMemoryError":
            raise DeviceError(f"the GPU's memory does not suffice: {text}; try fewer samples") from error
        foreign = type(error).__module__.split(".")[0] in ("cupy", "cupy_backends", "torch", "cuda")
        if foreign or isinstance(error, ImportError | OSError) or "CUDA" in text:
            raise DeviceError(f"the GPU or one of its libraries failed ({kind}): {text}") from error
        raise
