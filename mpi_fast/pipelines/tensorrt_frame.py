"""The whole-frame graph of a bundle as one TensorRT engine, captured as one CUDA graph for each number of frames."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.tensorrt import Plan, open_plan
from mpi_fast.engines.tensorrt_device import bind
from mpi_fast.kernels.launch import Device
from mpi_fast.philox import mirrored_normal
from mpi_fast.pipelines import Frames, Sampling, in_batches
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
        self._plan = open_plan(bundle, name, rebuild=rebuild)
        facts = self._plan.facts
        self.name = f"{facts.package} {facts.version}, the whole frame as one engine, on {device.name}"
        initial = mirrored_normal(sampling.seed, sampling.samples, calibration.num_voxels)
        self._calibration, self._device = calibration, device
        self._constants = constants(calibration, initial)
        self._bound: dict[int, _Buffers] = {}

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        return in_batches(self._reconstruct, rows, max(self._plan.facts.batches), self._calibration.num_voxels)

    def _reconstruct(self, rows: NDArray[np.complex64]) -> Frames:
        reduced, frames = self._calibration.reduce(rows), len(rows)
        if frames not in self._bound:
            self._bound[frames] = _Buffers(self._plan, frames, self._device, self._constants)
        buffers = self._bound[frames]
        buffers.y[:, : reduced.y.shape[1]], buffers.noise[:] = reduced.y, reduced.noise
        buffers.run()
        self._device.wait()
        image, std, floor = (buffers.results[name] for name in RESULTS)
        return Frames(image.reshape(frames, -1), std.reshape(frames, -1), reduced.snr_db, floor)


class _Buffers:
    """Pinned and device memory for one number of frames, and the graph between them."""

    def __init__(self, plan: Plan, frames: int, device: Device, constants: dict[str, NDArray[np.float32]]) -> None:
        arrays, self._scratch, engine = bind(plan, frames, device)
        for name, constant in constants.items():
            device.copy(constant, arrays[name])
        self.y, self.noise = (device.pinned(arrays[name].shape, np.float32) for name in ("y", "noise"))
        self.results = {name: device.pinned(arrays[name].shape, np.float32) for name in RESULTS}

        def work() -> None:
            device.copy(self.y, arrays["y"])
            device.copy(self.noise, arrays["noise"])
            engine.enqueue()
            for name, host in self.results.items():
                device.fetch(arrays[name], host)

        work()
        device.wait()
        self.run: Callable[[], None] = device.capture(work)
