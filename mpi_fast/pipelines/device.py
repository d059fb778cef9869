"""The score network's whole frame on a GPU: samples, consensus and image, with any engine inside."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.denoiser import Evaluator
from mpi_fast.errors import InputError
from mpi_fast.kernels.capture import CapturedFrames
from mpi_fast.kernels.launch import Device, Graph
from mpi_fast.kernels.loop import Loop
from mpi_fast.kernels.table import consensus_table, step_table
from mpi_fast.pipelines import Sampling
from mpi_fast.pipelines.lanes import BATCHES, Lanes
from mpi_fast.schedule import SDES

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


class DeviceLoop(Lanes):
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
        self._sampling, self._longest_capture = sampling, longest_capture
        self._make_engine = make_engine
        super().__init__(calibration, open_device, batches)

    def _start(self, batches: Sequence[int]) -> tuple[str, list[int]]:
        self._engine, samples = self._make_engine(), self._sampling.samples
        fitting = [size for size in batches if self._engine.fits(size, samples)]
        if not fitting:
            raise InputError(f"{self._engine.name}: not for {samples} samples a frame, expected fewer")
        return self._engine.name, fitting

    def _open_lane(self, device: Device, frames: int) -> tuple[CapturedFrames, Loop]:
        evaluator = self._bind(frames, self._sampling.samples, device, self._table)
        consensus, evaluations = None, len(self._table)
        if self._consensus is not None:
            consensus = self._bind(frames, 1, device, self._consensus), self._consensus
            evaluations += len(self._consensus)
        loop = Loop(device, self._calibration, evaluator, self._table, self._sampling.seed, consensus=consensus)
        long = evaluations > self._longest_capture
        refused = f"{evaluations} evaluations, of which a graph may have {self._longest_capture}" if long else ""
        return CapturedFrames(device, {"signals": loop.signals}, loop, loop.outputs, evaluator, refused), loop

    def _bind(self, frames: int, samples: int, device: Device, table: NDArray[np.void]) -> DeviceEvaluator:
        evaluated = table[:-1]
        factors = evaluated["level_factor"]
        if factors.any():
            return self._engine.bind(frames, samples, device, (factors / factors[0]).tolist(), relative=True)
        return self._engine.bind(frames, samples, device, evaluated["sigma"].tolist())
