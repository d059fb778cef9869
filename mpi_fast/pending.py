"""Images that a GPU is still making."""

import time
from dataclasses import replace
from typing import Any

from mpi_fast.kernels.launch import Event
from mpi_fast.pipelines.failures import device_errors
from mpi_fast.reconstruction import Reconstruction


class Pending:
    """Of `Reconstructor.enqueue`: arrays of the GPU, and when they are written.

    Keep it until they are: it also keeps the signals, which are being read.

    Attributes
    ----------
    event : cupy.cuda.Event
        For programs that wait on the GPU, as by ``stream.wait_event(pending.event)``. With a stream of your own given
        to `Reconstructor.enqueue`, that waits already.
    """

    def __init__(self, images: Reconstruction, event: Event, signals: Any, began: float) -> None:
        self.event, self._images, self._signals, self._began = event, images, signals, began

    @property
    def done(self) -> bool:
        """Whether the images are there; DeviceError where the GPU failed."""
        with device_errors():
            return bool(self.event.done)

    def wait(self) -> Reconstruction:
        """The images, when they are there: CuPy arrays, or those given as ``out``.

        Their `elapsed_ms` ends when this returns.

        Raises
        ------
        DeviceError
            When the GPU failed meanwhile.
        """
        with device_errors():
            self.event.synchronize()
        if self._signals is not None:
            elapsed = 1e3 * (time.perf_counter() - self._began) / max(len(self._images), 1)
            self._images, self._signals = replace(self._images, elapsed_ms=elapsed), None
        return self._images
