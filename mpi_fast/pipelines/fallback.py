"""The CPU in place of a GPU that fails."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import DeviceError
from mpi_fast.kernels.launch import Event
from mpi_fast.pipelines import Array, Frames, Pipeline, Sampling
from mpi_fast.pipelines.capabilities import close, enqueue, warmup
from mpi_fast.reconstruction import Reconstruction


class WithFallback:
    """A pipeline on a GPU that is replaced by one on the CPU when the GPU fails; see `Pipeline`."""

    def __init__(self, gpu: Pipeline, on_cpu: Callable[[], tuple[Pipeline, str]]) -> None:
        self._pipeline, self._on_cpu = gpu, on_cpu

    @property
    def name(self) -> str:
        """The name of the current pipeline."""
        return self._pipeline.name

    @property
    def graphs(self) -> dict[int, Any]:
        """The graphs of the current pipeline."""
        return dict(getattr(self._pipeline, "graphs", {}))

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """See `Pipeline`."""
        frames: Frames = self._try(lambda pipeline: pipeline(rows))
        return frames

    def samples(self, rows: NDArray[np.complex64], sampling: Sampling) -> Array:
        """See `graph.PosteriorGraph.samples`."""
        drawn: Array = self._try(lambda pipeline: pipeline.samples(rows, sampling))
        return drawn

    def close(self) -> None:
        """See `PosteriorOnDevice.close`."""
        close(self._pipeline)

    def _try(self, work: Callable[[Any], Any]) -> Any:
        try:
            return work(self._pipeline)
        except DeviceError as error:
            warnings.warn(f"reconstruction continues on the CPU: {error}", RuntimeWarning, stacklevel=4)
            self._pipeline, _ = self._on_cpu()
            return work(self._pipeline)

    def warmup(self, rows: NDArray[np.complex64]) -> None:
        """See `capabilities.warmup`."""
        self._try(lambda pipeline: warmup(pipeline, rows))

    def enqueue(self, signals: Any, out: Reconstruction | None = None, stream: Any = None) -> tuple[Frames, Event]:
        """See `PosteriorOnDevice.enqueue`. This does not fall back to the CPU, because images must be on the GPU."""
        return enqueue(self._pipeline, signals, out, stream)
