"""Frames that come as long as a scanner runs, and images as fast as they can be made.

    with Live(Reconstructor(calibration), average=4) as live:
        acquisition.on_frame = live.submit      # from its own thread
        for image in live:                      # in this one
            show(image.image, image.number, image.latency_ms)

Data flow one way, each part in a module of its own::

    submit -> waiting.Line -> preparation -> reconstruct, as many at once as pace allows -> waiting.Line -> iteration
                              |  sliding mean, running background               |
                              `------------------- counters, latencies ---------'
"""

from mpi_fast.live.asynchronous import AsyncLive
from mpi_fast.live.frames import LiveImage
from mpi_fast.live.stream import Live

__all__ = ["AsyncLive", "Live", "LiveImage"]
