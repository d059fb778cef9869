"""A minute at a scanner's rate, with empty frames, NaN and means: memory does not grow, every frame is counted."""

import time

import live_stream

from mpi_fast import Reconstructor
from mpi_fast.live import Live

RATE, SECONDS = 1532, 60


def test_a_minute_at_the_scanners_rate():
    calibration, frames, empty = live_stream.simulated()
    reconstruct = Reconstructor(calibration, threads=1)
    with Live(reconstruct, average=4) as live:
        began = time.monotonic()
        memory = live_stream.drive(live, frames, empty, RATE * SECONDS, RATE)
        assert time.monotonic() - began >= SECONDS - 1
        found = live.statistics()
    assert found.frames == RATE * SECONDS
    assert found.frames == found.frames_dropped + found.background + found.images
    assert found.images == found.delivered + found.images_dropped
    assert (found.missing, found.failed, found.refused, found.waiting) == (0, 0, 0, 0)
    assert found.images >= 10  # of 92 000, if other work takes nearly all of the machine
    assert 0 < found.background <= RATE * SECONDS // live_stream.EMPTY + 8
    assert max(memory[20:]) < 1.05 * max(memory[10:20])
