"""Your own MDF files: calibrate, check that the two files belong together, reconstruct, and write the images as files.

With files:     python examples/own_files.py system-matrix.mdf measurement.mdf
Without files:  python examples/own_files.py             simulates a pair of them first, in the current folder
"""

import sys
from pathlib import Path

import numpy as np

from mpi_fast import Calibration, Reconstructor
from mpi_fast.experiment import Receiver, measure_matrix, save_frames, save_matrix
from mpi_fast.flags import names_of
from mpi_fast.formats import Header, writing
from mpi_fast.mdf import MeasurementFile
from mpi_fast.pairing import MeasuredRows, image_grid
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner


def simulated_files() -> tuple[Path, Path]:
    """Write a system matrix and a measurement of six frames and eight background frames, as a scanner would."""
    rng = np.random.default_rng(0)
    matrix = measure_matrix(Scanner(sub_voxels=2), 20.0, rng)
    receiver = Receiver(matrix, matrix.calibrate().selection, 20.0, rng, feed_through=True, steady=True)
    save_matrix("system-matrix.mdf", matrix)
    save_frames("measurement.mdf", receiver, generate("tumours", 6, matrix.scanner.grid, rng), background=8)
    return Path("system-matrix.mdf"), Path("measurement.mdf")


matrix_file, measurement_file = map(Path, sys.argv[1:3]) if len(sys.argv) > 2 else simulated_files()

calibration = Calibration.from_mdf(matrix_file, snr_threshold=5.0, min_frequency=80e3)
print(f"{calibration.num_rows} rows, of which {calibration.rank} combinations rise above the noise")

outputs = [Path("images.mdf"), Path("images.npz"), Path("own_files.png")]  # the suffix selects the format
with MeasurementFile(measurement_file) as file:
    rows = MeasuredRows(file, calibration)  # refuses another scanner's measurement; subtracts the background
    for converted in rows.agreement.done:
        print("converted:", converted)
    reconstruct = Reconstructor(calibration, threads=1)
    with writing(outputs, Header(image_grid(calibration), file.acquisition)) as writer:
        for result in reconstruct.stream(rows):  # in chunks, for files of any length
            writer.append(result, rows.numbers, rows.times)
            for number, flags in zip(rows.numbers, result.flags, strict=True):
                print(f"frame {number}: {', '.join(names_of(int(flags))) or 'nothing to report'}")
print("wrote", ", ".join(map(str, outputs)))
