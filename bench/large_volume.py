"""A large volume, end to end: time and memory of every command from the system matrix to the image of a frame.

    python bench/large_volume.py [--grid 37x37x37] [--rows 6000] [--cores 0,1] [--folder DIR] [--json FILE]

The scanner is the held-out one of volumes (`heldout.VOLUME`) with this grid over its field of view. ``rows`` of its
matrix have an SNR of 5 or more; 6000 is the default maximum of `mpi-fast calibrate` for volumes.
Every stage is a separate process, bound to these cores. Its wall-clock time, processor time and peak memory are
measured (the kernel's maximum resident set size, as by ``/usr/bin/time -v``). With a folder the files stay there, and
existing files are not simulated again.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mpi_fast.cli.options import parse_grid, parse_integers
from mpi_fast.console import write_json
from mpi_fast.experiment import MATRIX_BYTES, Receiver, save_frames, save_matrix
from mpi_fast.heldout import VOLUME, phantoms
from mpi_fast.machine import machine

MATRIX, MEASUREMENT, CALIBRATION = "system-matrix.mdf", "measurement.mdf", "scanner.h5"
SPARE = 1.2  # ratio of kept to requested rows: the three channels of a frequency are kept together
SNR_DB = 20.0


@dataclass(frozen=True)
class Cost:
    """Cost of one stage: wall-clock and processor time in seconds, and peak memory in GiB."""

    stage: str
    wall_s: float
    cpu_s: float
    peak_gib: float

    def __str__(self) -> str:
        return f"| {self.stage} | {self.wall_s:.0f} s | {self.cpu_s:.0f} s | {self.peak_gib:.2f} GiB |"


def simulate(grid: tuple[int, ...], rows: int, folder: Path) -> None:
    """Write a matrix with this number of usable rows, and a measurement of one phantom."""
    voxels = int(np.prod(grid))
    kept = max(MATRIX_BYTES, round(SPARE * 8 * rows * voxels))
    matrix = replace(VOLUME.on(grid), rows_above_5=rows).measure_matrix(kept)
    selection = np.ones(matrix.truth.shape[:2], dtype=bool)
    receiver = Receiver(matrix, selection, SNR_DB, np.random.default_rng(0))
    save_frames(folder / MEASUREMENT, receiver, phantoms(1, 0, grid, matrix.scanner.aspect), time_domain=False)
    save_matrix(folder / MATRIX, matrix)


def measured(stage: str, arguments: Sequence[str]) -> Cost:
    """Run Python with these arguments, and measure its cost; its output is printed.

    The least peak memory that the kernel reports is that of this process, 0.1 GiB.
    """
    began = time.perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, *arguments], os.environ)
    _, status, used = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{stage}: failed with {os.waitstatus_to_exitcode(status)}")
    return Cost(stage, time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", default="37x37x37")
    parser.add_argument("--rows", type=int, default=6000, help="number of rows with an SNR of 5 or more")
    parser.add_argument("--cores", help="such as 0,1; default: all that this process may use")
    parser.add_argument("--folder", type=Path, help="folder that keeps the files")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--simulate-only", action="store_true", help=argparse.SUPPRESS)  # for a stage's process
    options = parser.parse_args()
    if options.simulate_only:
        simulate(parse_grid(options.grid), options.rows, options.folder)
        return
    if options.cores:
        os.sched_setaffinity(0, parse_integers(options.cores, "--cores") or ())
    cores = sorted(os.sched_getaffinity(0))
    os.environ["OMP_NUM_THREADS"] = str(len(cores))
    with ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        matrix, measurement, calibration = (str(folder / name) for name in (MATRIX, MEASUREMENT, CALIBRATION))
        here = [__file__, "--grid", options.grid, "--rows", str(options.rows), "--folder", str(folder)]
        command = ["-m", "mpi_fast"]
        stages = {
            "simulate": [*here, "--simulate-only"],
            "calibrate": [*command, "calibrate", matrix, "-o", calibration],
            "info": [*command, "info", calibration],
            "reconstruct one frame": [*command, "reconstruct", measurement, "-c", calibration],
        }
        if (folder / MATRIX).is_file() and (folder / MEASUREMENT).is_file():
            del stages["simulate"]
        costs = [measured(stage, arguments) for stage, arguments in stages.items()]
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{options.grid} voxels, {options.rows} rows, {len(cores)} cores, load average at the end {load}")
    print("\n".join(["| stage | time | processor time | peak memory |", "|---|---|---|---|", *map(str, costs)]))
    if options.json:
        content = {"grid": options.grid, "rows": options.rows, "cores": cores, "load": os.getloadavg()}
        write_json(options.json, {**content, "machine": machine(), "stages": [vars(cost) for cost in costs]})


if __name__ == "__main__":
    main()
