"""The whole-frame graph of a bundle as one TensorRT engine, captured as one CUDA graph for each number of frames."""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.tensorrt import open_plan
from mpi_fast.engines.tensorrt_device import bind
from mpi_fast.kernels.capture import Capture, CapturedFrames
from mpi_fast.kernels.launch import Array, Device
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Frames, Sampling, in_batches
from mpi_fast.pipelines.failures import device_errors
from mpi_fast.pipelines.graph import constants

RESULTS = ("image", "std", "noise_floor")


class TensorRTFrame:
    """See `Pipeline`; the signals are reduced on the host.

    Parameters
    ----------
    calibration, sampling, bundle, name
        As for `graph.WholeFrame`.
    device : Device
        Where the engine runs.
    rebuild : bool
        Whether to build an engine that the bundle lacks, see `tensorrt.open_plan`, which says what this raises.
    """

    def __init__(
        self,
        calibration: Calibration,
        sampling: Sampling,
        bundle: Bundle,
        name: str,
        device: Device,
        *,
        rebuild: bool = False,
    ) -> None:
        with device_errors(), device.active():
            self._plan = open_plan(bundle, name, rebuild=rebuild)
        initial = mirrored_normal(sampling.seed, sampling.samples, calibration.num_voxels)
        self._calibration, self._device = calibration, device
        self._constants = constants(calibration, initial)
        self._bound: dict[int, tuple[CapturedFrames, Array]] = {}

    @property
    def name(self) -> str:
        """What computes, and whether a frame is one graph."""
        facts = self._plan.facts
        what = f"{facts.package} {facts.version}, the whole frame as one engine, on {self._device.name}"
        return ", ".join([what, *(str(state) for state in list(self.graphs.values())[:1])])

    @property
    def graphs(self) -> dict[int, Capture]:
        """See `DeviceLoop.graphs`."""
        return {frames: lane.state for frames, (lane, _) in self._bound.items()}

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        with device_errors():
            return in_batches(self._reconstruct, rows, max(self._plan.facts.batches), self._calibration.num_voxels)

    def _reconstruct(self, rows: NDArray[np.complex64]) -> Frames:
        reduced, frames = self._calibration.reduce(rows), len(rows)
        if frames not in self._bound:
            self._bound[frames] = self._bind(frames)
        lane, _ = self._bound[frames]
        lane.given["y"][:, : reduced.y.shape[1]], lane.given["noise"][:] = reduced.y, reduced.noise
        lane.submit()
        found = lane.collect()
        image, std, floor = (found[name] for name in RESULTS)
        return Frames(image.reshape(frames, -1), std.reshape(frames, -1), reduced.snr_db, floor)

    def _bind(self, frames: int) -> tuple[CapturedFrames, Array]:
        """The graph for a number of frames, and the engine's scratch memory, which lives as long."""
        device = self._device
        with device.active():
            arrays, scratch, engine = bind(self._plan, frames, device)
        for name, constant in self._constants.items():
            device.copy(np.ascontiguousarray(constant, arrays[name].dtype), arrays[name])
        given, made = ({name: arrays[name] for name in names} for names in (("y", "noise"), RESULTS))
        return CapturedFrames(device, given, engine.enqueue, made), scratch
