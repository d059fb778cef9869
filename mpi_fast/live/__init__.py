"""Reconstruct frames while a scanner delivers them.

    with Live(Reconstructor(calibration), average=4) as live:
        acquisition.on_frame = live.submit      # called by its own thread
        for image in live:                      # runs in this thread
            show(image.image, image.number, image.latency_ms)

Data flow in one direction, and each part is a module::

    submit -> waiting.Line -> preparation -> reconstruct, in batches limited by pace -> waiting.Line -> iteration
                              |  sliding mean, running background               |
                              `------------------- counters, latencies ---------'
"""

from mpi_fast.live.asynchronous import AsyncLive
from mpi_fast.live.frames import LiveImage
from mpi_fast.live.stream import Live

__all__ = ["AsyncLive", "Live", "LiveImage"]
