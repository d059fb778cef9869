"""A live stream at the scanner's rate: dropped frames, latency, and growth of memory.

    python bench/live_stream.py [--frames 1000000] [--rate 1532] [--average 1] [--model BUNDLE] [--json FILE]

Frames of samples from a simulated scanner of 19 x 19 voxels are submitted at a fixed rate. One in 500 is marked empty,
and some contain NaN, singly and in bursts. One thread submits, one reconstructs, one fetches. Latency is measured from
a frame's arrival to its image, for frames that are not dropped. Memory is the resident set of the process after a tenth
of the frames, when every buffer has been used, and at the end.
"""

import argparse
import json
import os
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.console import console, facts_table, progress_bar
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.live import Live
from mpi_fast.machine import cores, processor
from mpi_fast.phantoms import generate
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner

POOL = 64  # different frames, submitted in turn
EMPTY, BAD, BURST = 500, 997, 10_000  # frames from one empty frame, bad frame or burst of bad frames to the next
LONG = 20  # frames of a burst


def resident() -> int:
    """Resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def simulated(seed: int = 0) -> tuple[Any, NDArray[np.float32], NDArray[np.float32]]:
    """A calibration, frames of samples (F, C, V) and empty ones."""
    rng = np.random.default_rng(seed)
    matrix = measure_matrix(Scanner(), 20.0, rng)
    calibration = matrix.calibrate()
    receiver = Receiver(matrix, calibration.selection, 20.0, rng, feed_through=True, steady=True)
    spectra = receiver.frames(generate(["tumours", "vessels"], POOL, calibration.grid, seed))
    pools = (np.fft.irfft(one, calibration.num_samples).astype(np.float32) for one in (spectra, receiver.background(8)))
    return calibration, *pools


def drive(live: Live, frames: NDArray[np.float32], empty: NDArray[np.float32], count: int, rate: float) -> list[int]:
    """Submit frames at a rate (1/s) and fetch all images; returns the resident memory at 100 moments."""
    spoilt = frames[0].copy()
    spoilt[0, 7] = np.nan
    consumer = threading.Thread(target=lambda: [None for _ in live])
    consumer.start()
    memory, began = [], time.monotonic()
    with progress_bar("frames") as bar:
        task = bar.add_task("offering", total=count)
        for number in range(count):
            ahead = began + number / rate - time.monotonic()
            if ahead > 0.002:
                time.sleep(ahead)
            bad = number % BAD == BAD - 1 or number % BURST >= BURST - LONG
            nothing = number % EMPTY < (8 if number < EMPTY else 1)
            signals = spoilt if bad else empty[number % len(empty)] if nothing else frames[number % len(frames)]
            live.submit(signals, number, empty=nothing)
            if number % (count // 100) == count // 100 - 1:
                memory.append(resident())
                bar.update(task, completed=number + 1)
    live.finish()
    consumer.join()
    return memory


def run(count: int, rate: float, average: int, model: str) -> dict[str, Any]:
    """Submit frames, and return the counters of the stream."""
    calibration, frames, empty = simulated()
    reconstruct = Reconstructor(calibration, model=model, threads=1)
    reconstruct(np.repeat(calibration.select(frames[:1]), 2, axis=0))
    with Live(reconstruct, average=average) as live:
        began, processor_s = time.monotonic(), time.process_time()
        memory = drive(live, frames, empty, count, rate)
        seconds, processor_s = time.monotonic() - began, time.process_time() - processor_s
        found = live.statistics()
    gone = found.frames_dropped + found.background + found.images
    return {
        "processor": processor(),
        "cores": cores(),
        "load": [round(one, 2) for one in os.getloadavg()],
        "rate_wanted": rate,
        "rate_offered": found.frames / seconds,
        "rate_made": found.images / seconds,
        "processor_share": processor_s / seconds,
        "average": average,
        "model": model,
        "unaccounted": found.frames - gone,
        "memory_mb": [round(one / 1e6, 1) for one in (memory[9], max(memory), memory[-1])],
        "memory_growth": memory[-1] / memory[9] - 1,
        **asdict(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--rate", type=float, default=1532.0, help="rate of submitted frames, in 1/s")
    parser.add_argument("--average", type=int, default=1)
    parser.add_argument("--model", default="default")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = run(options.frames, options.rate, options.average, options.model)
    console.print(facts_table("live", result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
