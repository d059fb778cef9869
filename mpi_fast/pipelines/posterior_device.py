"""The posterior network's whole frame on a GPU, by kernels of its own: one evaluation, one CUDA graph, for planes."""

from collections.abc import Callable, Sequence

from mpi_fast.bundle import PLANE, Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.initializers import network_parameters
from mpi_fast.kernels.capture import CapturedFrames
from mpi_fast.kernels.launch import Device
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.weights import Weights
from mpi_fast.pipelines.lanes import BATCHES, Lanes


class PosteriorOnDevice(Lanes):
    """See `Pipeline`.

    Parameters
    ----------
    calibration : Calibration
        Of a plane.
    bundle : Bundle
        Of a posterior network.
    open_device : callable
        A device with a stream of its own, for each lane.
    batches : sequence of int
        Numbers of frames to keep a lane for.

    Raises
    ------
    DeviceError
        When the GPU, its memory or a library fails, here or in a call.
    InputError
        For the calibration of a volume.
    ModelError
        For a network that the kernels are not written for.
    """

    def __init__(
        self,
        calibration: Calibration,
        bundle: Bundle,
        open_device: Callable[[], Device],
        batches: Sequence[int] = BATCHES,
    ) -> None:
        self._parameters = network_parameters(bundle.read(PLANE), f"{bundle.path}/{PLANE}")
        super().__init__(calibration, open_device, batches)

    def _start(self, batches: Sequence[int]) -> tuple[str, list[int]]:
        return "the posterior network's own kernels, fp16 convolutions", list(batches)

    def _open_lane(self, device: Device, frames: int) -> tuple[CapturedFrames, PosteriorLoop]:
        loop = PosteriorLoop(device, self._calibration, Weights.upload(self._parameters, device), frames)
        return CapturedFrames(device, {"signals": loop.signals}, loop, loop.outputs), loop
