"""A whole frame on a GPU, by the network's own kernels: one CUDA graph, for planes."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from mpi_fast.bundle import PLANE, Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.engines.initializers import network_parameters
from mpi_fast.kernels.capture import CapturedFrames
from mpi_fast.kernels.launch import Device
from mpi_fast.kernels.posterior import PosteriorLoop
from mpi_fast.kernels.sampling import PosteriorSampler
from mpi_fast.kernels.solvers import posterior_chain
from mpi_fast.kernels.weights import Weights
from mpi_fast.pipelines import Array, Sampling
from mpi_fast.pipelines.failures import device_errors
from mpi_fast.pipelines.lanes import BATCHES, Lanes
from mpi_fast.schedule import SDES


class PosteriorOnDevice(Lanes):
    """See `Pipeline`.

    Parameters
    ----------
    calibration : Calibration
        Of a plane.
    bundle : Bundle
        With the network.
    open_device : callable
        A device with a stream of its own, for each lane.
    batches : sequence of int
        Numbers of frames to keep a lane for.
    evaluations : int
        Of the network for each frame, see `PosteriorLoop`.

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
        evaluations: int = 1,
    ) -> None:
        self._parameters = network_parameters(bundle.read(PLANE), f"{bundle.path}/{PLANE}")
        self._evaluations, self._sigma_range = evaluations, bundle.sigma_range
        self._samplers: dict[int, PosteriorSampler] = {}
        super().__init__(calibration, open_device, batches)

    def samples(self, rows: NDArray[np.complex64], sampling: Sampling) -> Array:
        """See `graph.PosteriorGraph.samples`: (F, samples, N), many at once, whatever frame they are of."""
        chain = posterior_chain(sampling.sampler, SDES[sampling.sde](*self._sigma_range), sampling.steps)
        count = len(rows) * sampling.samples
        images = np.empty((count, self._calibration.num_voxels), np.float32)
        with device_errors():
            size = next((size for size in self._batches if size >= count), self.batch)
            if size not in self._samplers:
                self._samplers[size] = self._open_sampler(self._open_device(), size)
            for start in range(0, count, size):
                numbers = np.arange(start, min(start + size, count))
                given = rows[numbers // sampling.samples], start, sampling.samples, sampling.seed, chain
                images[numbers] = self._samplers[size](*given)
        return images.reshape(len(rows), sampling.samples, -1)

    def close(self) -> None:
        """See `Lanes.close`."""
        self._samplers.clear()
        super().close()

    def _open_sampler(self, device: Device, images: int) -> PosteriorSampler:
        with device.active():
            return PosteriorSampler(device, self._calibration, Weights.upload(self._parameters, device), images)

    def _start(self, batches: Sequence[int]) -> tuple[str, list[int]]:
        return "the posterior network's own kernels, fp16 convolutions", list(batches)

    def _open_lane(self, device: Device, frames: int) -> tuple[CapturedFrames, PosteriorLoop]:
        weights = Weights.upload(self._parameters, device)
        loop = PosteriorLoop(device, self._calibration, weights, frames, evaluations=self._evaluations)
        return CapturedFrames(device, {"signals": loop.signals}, loop, loop.outputs), loop
