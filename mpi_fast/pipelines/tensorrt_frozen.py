"""The frozen graph of a calibration as one TensorRT engine, captured as one CUDA graph for each number of frames.

Everything is on the GPU, from the selected rows of a frame to its image: the scanner is part of the engine.
"""

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.tensorrt_plan import bind, open_plan
from mpi_fast.frozen import frozen_for
from mpi_fast.kernels.capture import Capture, CapturedFrames
from mpi_fast.kernels.launch import Array, Device
from mpi_fast.limits import EVALUATIONS
from mpi_fast.pipelines import Frames, in_batches
from mpi_fast.pipelines.failures import device_errors

ROWS, RESULTS = ("real", "imag"), ("image", "std", "quantiles", "snr_db", "noise_floor")


class TensorRTFrozen:
    """See `Pipeline`.

    Parameters
    ----------
    calibration : Calibration
        That the bundle has a frozen graph of.
    bundle : Bundle
        With that and its engine for the GPU at hand.
    device : Device
        Where the engine runs.
    precision : str
        ``fp16`` for the graph with float16 inside, where the bundle has it; ``tf32`` and ``fp32`` for that in float32,
        which rounds products to TF32 where the engine was built so.
    evaluations : int
        Of the network, that the frozen graph has inside.

    Raises
    ------
    MismatchError, ModelError
        As `frozen.frozen_for` and `engines.tensorrt_plan.open_plan`.
    """

    def __init__(
        self,
        calibration: Calibration,
        bundle: Bundle,
        device: Device,
        precision: str = "fp16",
        evaluations: int = EVALUATIONS,
    ) -> None:
        with device_errors(), device.active():
            self._plan = open_plan(bundle, frozen_for(bundle, calibration, precision, evaluations))
        self._voxels, self._device = calibration.num_voxels, device
        self._bound: dict[int, tuple[CapturedFrames, Array]] = {}

    @property
    def name(self) -> str:
        """What computes, and whether a frame is one graph."""
        facts = self._plan.facts
        what = f"{facts.package} {facts.version}, {facts.precision}, the scanner in the engine, on {self._device.name}"
        return ", ".join([what, *(str(state) for state in list(self.graphs.values())[:1])])

    @property
    def graphs(self) -> dict[int, Capture]:
        """Whether frames are one CUDA graph, by how many there are at once."""
        return {frames: lane.state for frames, (lane, _) in self._bound.items()}

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        with device_errors():
            return in_batches(self._reconstruct, rows, max(self._plan.facts.batches), self._voxels)

    def _reconstruct(self, rows: NDArray[np.complex64]) -> Frames:
        frames = len(rows)
        if frames not in self._bound:
            self._bound[frames] = self._bind(frames)
        lane, _ = self._bound[frames]
        lane.given["real"][:], lane.given["imag"][:] = rows.real, rows.imag
        lane.submit()
        found = lane.collect()
        return Frames(
            found["image"].reshape(frames, -1),
            found["std"].reshape(frames, -1),
            found["snr_db"],
            found["noise_floor"],
            found["quantiles"],
        )

    def _bind(self, frames: int) -> tuple[CapturedFrames, Array]:
        """The graph for a number of frames, and the engine's scratch memory, which lives as long."""
        with self._device.active():
            arrays, scratch, engine = bind(self._plan, frames, self._device)
        given, made = ({name: arrays[name] for name in names} for names in (ROWS, RESULTS))
        return CapturedFrames(self._device, given, engine.enqueue, made), scratch
