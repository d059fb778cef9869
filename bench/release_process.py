"""Runs inside a release: answers requests of `release.Release`, one JSON object per line, with one thread.

    python bench/release_process.py TREE MATRIX.mdf        # with TREE on PYTHONPATH, TREE being the release's files

It may use only code of the release. A request ``{"measurement", "frames": [start, stop], "output"}`` is answered by
``{"wall_ms", "cpu_ms"}`` of one call with these frames; images and standard deviations go to the output, an ``.npz``
file, if there is one.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np

import mpi_fast
from mpi_fast.calibration import Calibration
from mpi_fast.mdf import MeasurementFile
from mpi_fast.reconstructor import Reconstructor


def main() -> None:
    tree, matrix_file = sys.argv[1:]
    if not mpi_fast.__file__ or not Path(mpi_fast.__file__).is_relative_to(tree):
        sys.exit(f"mpi_fast is that of {mpi_fast.__file__}, expected one of {tree}")
    reconstruct = Reconstructor(Calibration.from_mdf(matrix_file), device="cpu", threads=1)
    read, rows = None, np.empty(0)
    for line in sys.stdin:
        request = json.loads(line)
        if request["measurement"] != read:
            read = request["measurement"]
            with MeasurementFile(read) as file:
                rows = np.concatenate([reconstruct.calibration.rows(chunk) for chunk in file.frames()])
        part = rows[slice(*request["frames"])]
        wall, cpu = time.perf_counter(), time.process_time()
        found = reconstruct(part)
        spent = {"wall_ms": 1e3 * (time.perf_counter() - wall), "cpu_ms": 1e3 * (time.process_time() - cpu)}
        if request["output"]:
            np.savez(request["output"], image=found.image, std=found.std)
        print(json.dumps(spent), flush=True)


if __name__ == "__main__":
    main()
