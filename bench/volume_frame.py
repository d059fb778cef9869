"""Time of a volume: single frames through `Reconstructor`, in wall-clock and processor time.

    python bench/volume_frame.py [--grid 19x19x19] [--rank 1000] [--rows 3000] [--frames 20] [--threads N] [--json FILE]

The calibration consists of random numbers, because the time depends only on its sizes, which are those of OpenMPI's
scanner. Frames are not inspected, and come one at a time, as from a scanner. The load average shows how busy the
machine was. Beside other work, only the processor time of one thread is comparable.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpi_fast import Calibration, Reconstructor
from mpi_fast.cli.options import parse_grid
from mpi_fast.console import write_json
from mpi_fast.machine import cores, machine

PERIOD_MS = 21.5  # the scanner's time for one volume


def synthetic_calibration(grid: tuple[int, ...], rank: int, rows: int) -> Calibration:
    """A calibration of these sizes whose factors are orthonormal."""
    rng, voxels = np.random.default_rng(0), int(np.prod(grid))
    basis, _ = np.linalg.qr(rng.standard_normal((voxels, rank), dtype=np.float32))
    sides, _ = np.linalg.qr(rng.standard_normal((2 * rows, rank), dtype=np.float32))
    return Calibration(
        grid=grid,
        field_of_view=(0.038,) * len(grid),
        selection=np.ones((1, rows), dtype=bool),
        frequencies=np.arange(rows, dtype=np.float64),
        matrix=np.zeros((rows, voxels), np.complex64),  # its memory pages are never used
        weights=np.ones(rows),
        singular_values=np.geomspace(100, 1, rank).astype(np.float32),
        basis=basis,
        projection=(sides[:rows].T - 1j * sides[rows:].T).astype(np.complex128),
    )


def signals_of(calibration: Calibration) -> NDArray[np.complex64]:
    """Selected rows (1, M) of a random image, with noise."""
    rng = np.random.default_rng(1)
    image = rng.random((1, calibration.num_voxels), dtype=np.float32)
    y = (image @ calibration.basis) * calibration.singular_values
    rows = (y @ calibration.projection).conj() + rng.standard_normal((1, calibration.num_rows))
    return rows.astype(np.complex64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", default="19x19x19")
    parser.add_argument("--rank", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=3000)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", type=int, default=cores())
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    calibration = synthetic_calibration(parse_grid(options.grid), options.rank, options.rows)
    rows = signals_of(calibration)
    reconstruct = Reconstructor(calibration, threads=options.threads, inspect=False)
    reconstruct(rows)  # to warm up
    wall, cpu = [], []
    for _ in range(options.frames):
        began = time.perf_counter(), time.process_time()
        reconstruct(rows)
        wall.append(1e3 * (time.perf_counter() - began[0]))
        cpu.append(1e3 * (time.process_time() - began[1]))
    found = {
        "grid": options.grid,
        "rank": options.rank,
        "rows": options.rows,
        "threads": options.threads,
        "wall_ms": {"best": min(wall), "median": float(np.median(wall))},
        "cpu_ms": {"best": min(cpu), "median": float(np.median(cpu))},
        "load": os.getloadavg(),
        "machine": machine(),
    }
    print(f"{options.grid}, rank {options.rank}, {options.rows} rows, {options.threads} threads, {reconstruct.runs_on}")
    for name, values in (("wall-clock time", wall), ("processor time", cpu)):
        print(f"{name}: best {min(values):.0f} ms, median {np.median(values):.0f} ms of {options.frames} frames")
    print(f"the scanner's period {PERIOD_MS} ms; load average {', '.join(f'{one:.1f}' for one in os.getloadavg())}")
    if options.json:
        write_json(options.json, found)


if __name__ == "__main__":
    main()
