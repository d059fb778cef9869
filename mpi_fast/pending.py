"""Results that a GPU is still computing."""

import time
from dataclasses import replace
from typing import Any

from mpi_fast.kernels.launch import Event
from mpi_fast.pipelines.failures import device_errors
from mpi_fast.reconstruction import Reconstruction


class Pending:
    """The result of `Reconstructor.enqueue`: arrays on the GPU, and whether they are complete.

    Keep this object until they are: it also keeps the signals in memory, which are still being read.

    Attributes
    ----------
    event : cupy.cuda.Event
        For programs that wait on the GPU, as by ``stream.wait_event(pending.event)``. A stream that was given to
        `Reconstructor.enqueue` waits already.
    """

    def __init__(self, images: Reconstruction, event: Event, signals: Any, began: float) -> None:
        self.event, self._images, self._signals, self._began = event, images, signals, began

    @property
    def done(self) -> bool:
        """Whether the images are complete; raises DeviceError if the GPU failed."""
        with device_errors():
            return bool(self.event.done)

    def wait(self) -> Reconstruction:
        """Wait until the images are complete and return them: CuPy arrays, or those given as ``out``.

        Their `elapsed_ms` includes this waiting.

        Raises
        ------
        DeviceError
            If the GPU has failed.
        """
        with device_errors():
            self.event.synchronize()
        if self._signals is not None:
            elapsed = 1e3 * (time.perf_counter() - self._began) / max(len(self._images), 1)
            self._images, self._signals = replace(self._images, elapsed_ms=elapsed), None
        return self._images
