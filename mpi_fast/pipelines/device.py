"""Reconstruction on a GPU by the network's own kernels.

Each batch size has its own lane (`CapturedFrames`): a stream, buffers that are allocated once, and a CUDA graph of all
work between signals and images in pinned memory of the host. Smaller batches are padded with empty frames. Many frames
use two lanes of the largest size in turn, so that the transfers of one overlap with the computation of the other.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import PLANE, Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.initializers import network_parameters
from mpi_fast.kernels.capture import Capture, CapturedFrames
from mpi_fast.kernels.launch import Array, Device, Event, expect
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.prepare import STATISTICS
from mpi_fast.kernels.sampling import PosteriorSampler
from mpi_fast.kernels.solvers import posterior_chain
from mpi_fast.kernels.weights import Weights
from mpi_fast.limits import EVALUATIONS
from mpi_fast.pipelines import Frames, Sampling
from mpi_fast.pipelines.failures import device_errors
from mpi_fast.reconstruction import Reconstruction
from mpi_fast.schedule import SDES
from mpi_fast.uncertainty import LEVELS

BATCHES = (1, 8, 64, 512)
VOXELS = 1 << 22  # most voxels of all images of a batch: buffers take some 370 bytes for each, 1.6 GB together
Lane = tuple[CapturedFrames, PosteriorLoop]
"""The captured work, and the loop that it runs."""


class PosteriorOnDevice:
    """The network's own kernels as a `Pipeline`.

    Parameters
    ----------
    calibration : Calibration
        Calibration of a plane or a volume.
    bundle : Bundle
        Bundle of the network.
    open_device : callable
        Opens a device with its own stream; called for each lane.
    batches : sequence of int
        Batch sizes. Those whose images have more than `VOXELS` voxels together are not used, except the smallest.
    evaluations : int
        Evaluations of the network for each frame, see `PosteriorLoop`.

    Raises
    ------
    DeviceError
        If the GPU, its memory or a library fails, here or in a call.
    ModelError
        For a network for which the kernels are not written.
    """

    def __init__(
        self,
        calibration: Calibration,
        bundle: Bundle,
        open_device: Callable[[], Device],
        batches: Sequence[int] = BATCHES,
        evaluations: int = EVALUATIONS,
    ) -> None:
        self._calibration, self._open_device, self._evaluations = calibration, open_device, evaluations
        self._parameters = network_parameters(bundle.read(PLANE), f"{bundle.path}/{PLANE}")
        self._sigma_range = bundle.sigma_range
        smallest, *others = sorted(batches)
        self._batches = [smallest, *(size for size in others if size * calibration.num_voxels <= VOXELS)]
        self._lanes: dict[tuple[int, int], Lane] = {}
        self._samplers: dict[int, PosteriorSampler] = {}
        with device_errors():
            self._device = open_device()
            self._index = self._device.upload(np.flatnonzero(calibration.selection))
            self._lane(1, 0)

    @property
    def batch(self) -> int:
        """Largest batch size."""
        return self._batches[-1]

    @property
    def name(self) -> str:
        """Description of the engine and device, and whether a frame is one CUDA graph."""
        graph = self.graphs[self._batches[0]]
        return f"the network's own kernels, fp16 convolutions, on {self._device.name}, {graph}"

    @property
    def graphs(self) -> dict[int, Capture]:
        """Whether a batch is one CUDA graph, by batch size, for the sizes in use so far."""
        return {size: lane.state for (size, _), (lane, _) in self._lanes.items()}

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        out = self._results(len(rows), lambda shape: np.empty(shape, np.float32))
        with device_errors():
            busy: deque[tuple[CapturedFrames, slice]] = deque()
            for turn, start in enumerate(range(0, len(rows), self.batch)):
                part = slice(start, min(start + self.batch, len(rows)))
                if len(busy) == 2:
                    self._collect(out, *busy.popleft())
                count = part.stop - part.start
                lane, _ = self._lane(count, turn % 2)
                with self._device.span(f"submit {count} frames"):
                    lane.given["signals"][:count], lane.given["signals"][count:] = rows[part], 0
                    lane.submit()
                busy.append((lane, part))
            while busy:
                self._collect(out, *busy.popleft())
        return out

    def enqueue(self, signals: Array, out: Reconstruction | None = None, stream: Any = None) -> tuple[Frames, Event]:
        """Enqueue the reconstruction of frames from and to arrays on the device. Signals of NaN give images of NaN.

        Memory is always allocated on the stream of `_device`. Each lane waits for this stream, and this stream for each
        lane. So memory that is freed is not reused by the next call while a lane still reads it.

        Parameters
        ----------
        signals : array
            Signals as for `Calibration.rows`, on the device.
        out : Reconstruction, optional
            Arrays of the device to overwrite; by default new ones are allocated.
        stream : optional
            See `Reconstructor.enqueue`. Without it, the device waits for the current stream of the signals' library.

        Returns
        -------
        frames : Frames
            Results, which are complete after the event.
        event : Event
            The end of the work.

        Raises
        ------
        MismatchError
            For channels, samples, frequencies or rows other than those of the calibration.
        InputError
            For signals of another type or number of axes, for arrays on another device or not on a GPU, and for ``out``
            of other shapes or types.
        """
        device = self._device
        with device_errors():
            if stream is not None:
                device.after(stream)
            adopted = device.adopt(signals, ordered=stream is not None)
            with device.active():
                rows = self._select(adopted)
            if out is None:
                frames = self._results(len(rows), lambda shape: device.empty(shape, np.float32))
            else:
                frames = self._adopted(out, len(rows), stream is not None)
            for start in range(0, len(rows), self.batch):
                part = slice(start, min(start + self.batch, len(rows)))
                lane, loop = self._lane(part.stop - part.start, 0)
                with loop.device.active(), loop.device.span(f"{part.stop - part.start} frames on the device"):
                    loop.device.after(device.stream_address)
                    loop.signals[: len(rows[part])], loop.signals[len(rows[part]) :] = rows[part], 0
                    lane.between()
                    _take(frames, loop.outputs, part)
                    loop.device.before(device.stream_address)
            if stream is not None:
                device.before(stream)
            return frames, device.mark()

    def warmup(self, rows: NDArray[np.complex64]) -> None:
        """Compile kernels and capture graphs for calls of `enqueue` with this number of frames."""
        with device_errors():
            _, event = self.enqueue(self._device.upload(rows))
            event.synchronize()

    def samples(self, rows: NDArray[np.complex64], sampling: Sampling) -> NDArray[np.float32]:
        """See `graph.PosteriorGraph.samples`. A batch contains samples of different frames."""
        chain = posterior_chain(sampling.sampler, SDES[sampling.sde](*self._sigma_range), sampling.steps)
        count = len(rows) * sampling.samples
        images = np.empty((count, self._calibration.num_voxels), np.float32)
        with device_errors():
            sampler, size = self._sampler(count)
            for start in range(0, count, size):
                numbers = np.arange(start, min(start + size, count))
                given = rows[numbers // sampling.samples], start, sampling.samples, sampling.seed, chain
                images[numbers] = sampler(*given)
        return images.reshape(len(rows), sampling.samples, -1)

    def close(self) -> None:
        """Free the memory of the GPU; the pipeline cannot be used afterwards."""
        with device_errors():
            for _, loop in self._lanes.values():
                loop.device.wait()
            self._device.wait()
            self._lanes.clear()
            self._samplers.clear()
            self._device.release()

    def _collect(self, out: Frames, lane: CapturedFrames, part: slice) -> None:
        with self._device.span(f"collect {part.stop - part.start} frames"):
            _take(out, lane.collect(), part)

    def _results(self, frames: int, empty: Callable[[tuple[int, ...]], Array]) -> Frames:
        image, alone = (frames, self._calibration.num_voxels), (frames,)
        return Frames(*map(empty, (image, image, alone, alone, (frames, len(LEVELS)))))

    def _adopted(self, out: Reconstruction, frames: int, ordered: bool) -> Frames:
        """A caller's arrays as outputs, if they have the right shapes and types."""
        image = frames, *self._calibration.grid
        shapes = {"image": image, "std": image, "quantiles": (frames, len(LEVELS))}
        given = {name: self._device.adopt(getattr(out, name), f"out: {name}", ordered) for name in Frames._fields}
        expect("out", {name: (array, shapes.get(name, (frames,)), np.float32) for name, array in given.items()})
        with self._device.active():
            return Frames(**given | {name: given[name].reshape(frames, -1) for name in ("image", "std")})

    def _select(self, signals: Array) -> Array:
        """Selected rows (F, M), as `Calibration.select` does."""
        self._calibration.require_shape(signals)
        if signals.dtype.kind != "c":
            signals = np.fft.rfft(signals, axis=-1)
        if signals.ndim == 3:
            signals = signals.reshape(len(signals), -1)[:, self._index]
        return signals.astype(np.complex64, copy=False)

    def _lane(self, frames: int, turn: int) -> Lane:
        """The lane of the smallest batch size for this number of frames; for the largest size, ``turn`` selects one."""
        size = next(size for size in self._batches if size >= frames)
        key = size, turn if size == self.batch else 0
        if key not in self._lanes:
            device = self._open_device()
            with device.active():
                weights = Weights.upload(self._parameters, device)
                loop = PosteriorLoop(device, self._calibration, weights, size, evaluations=self._evaluations)
                self._lanes[key] = CapturedFrames(device, {"signals": loop.signals}, loop, loop.outputs), loop
        return self._lanes[key]

    def _sampler(self, images: int) -> tuple[PosteriorSampler, int]:
        """The sampler of the smallest batch size for this number of images, or of the largest size; and this size."""
        size = next((size for size in self._batches if size >= images), self.batch)
        if size not in self._samplers:
            device = self._open_device()
            with device.active():
                weights = Weights.upload(self._parameters, device)
                self._samplers[size] = PosteriorSampler(device, self._calibration, weights, size)
        return self._samplers[size], size


def _take(out: Frames, found: Mapping[str, Array], part: slice) -> None:
    """Copy the results of a lane to a part of all frames, without the padding."""
    statistics = dict(zip(STATISTICS, found["statistics"], strict=True))
    for name, target in out._asdict().items():
        target[part] = (found[name] if name in found else statistics[name])[: part.stop - part.start]
