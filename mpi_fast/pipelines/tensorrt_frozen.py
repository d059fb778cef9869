"""The frozen graph of a calibration as one TensorRT engine, captured as one CUDA graph for each number of frames.

The engine contains the scanner, so all computation from the selected rows to the image is on the GPU.
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
    """The frozen graph of a calibration, run by TensorRT, as a `Pipeline`.

    Parameters
    ----------
    calibration : Calibration
        Calibration for which the bundle has a frozen graph.
    bundle : Bundle
        Bundle with this graph and its engine for the present GPU.
    device : Device
        Device that runs the engine.
    precision : str
        ``fp16`` for the graph with float16 inside, if the bundle has it; ``tf32`` and ``fp32`` for that in float32,
        which rounds products to TF32 if the engine was built to do so.
    evaluations : int
        Evaluations of the network in the frozen graph.

    Raises
    ------
    MismatchError, ModelError
        The same errors as `frozen.frozen_for` and `engines.tensorrt_plan.open_plan`.
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
        """Description of the engine and device, and whether a frame is one CUDA graph."""
        facts = self._plan.facts
        what = f"{facts.package} {facts.version}, {facts.precision}, the scanner in the engine, on {self._device.name}"
        return ", ".join([what, *(str(state) for state in list(self.graphs.values())[:1])])

    @property
    def graphs(self) -> dict[int, Capture]:
        """Whether a batch is one CUDA graph, by the number of frames."""
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
        """The captured work for a number of frames, and the engine's scratch memory, which must exist as long."""
        with self._device.active():
            arrays, scratch, engine = bind(self._plan, frames, self._device)
        given, made = ({name: arrays[name] for name in names} for names in (ROWS, RESULTS))
        return CapturedFrames(self._device, given, engine.enqueue, made), scratch
