"""A volume: the same three lines for a grid with three axes, here 7 x 9 x 9 voxels.

Images are [z, y, x]; the picture shows the maxima along each axis, and the slices through the middle.
"""

from pathlib import Path

import numpy as np

from mpi_fast import Reconstructor, plots
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

rng = np.random.default_rng(0)
# A short cycle and coarse voxels, to be fast: Scanner.volume() is like the OpenMPI scanner, 21.5 ms a volume.
coarse = {"grid": (7, 9, 9), "voxel_size": (2.5e-3, 3.5e-3, 3.5e-3), "sub_voxels": 1}
scanner = Scanner.volume(dividers=(17, 16, 15), base_frequency=1.25e6, **coarse)
matrix = measure_matrix(scanner, snr_db=15.0, rng=rng)
calibration = matrix.calibrate()

phantoms = generate(["aneurysms", "tumours"], 2, calibration.grid, rng, scanner.aspect)
signals = Receiver(matrix, calibration.selection, 20.0, rng).frames(phantoms)
result = Reconstructor(calibration, threads=1)(signals)

print(f"{calibration.num_rows} rows, rank {calibration.rank}, images {result.image.shape}")
print(f"PSNR {', '.join(f'{quality:.1f}' for quality in psnr(result.image, phantoms))} dB")
plots.save(plots.reconstruction_figure(result.image, result.std, calibration.field_of_view), Path("volume.png"))
