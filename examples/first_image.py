"""A first image: simulate a scanner, calibrate, reconstruct, and look at image and uncertainty.

No files are needed: python examples/first_image.py
"""

from pathlib import Path

import numpy as np

from mpi_fast import Reconstructor, plots
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

rng = np.random.default_rng(0)

# A simulated system matrix, measured voxel by voxel with noise, and its calibration. For your own scanner:
# calibration = Calibration.from_mdf("system-matrix.mdf").
matrix = measure_matrix(Scanner(sub_voxels=2), snr_db=20.0, rng=rng)
calibration = matrix.calibrate()

# Signals of three phantoms at 20 dB, as spectra of complex numbers: (frames, channels, frequencies).
phantoms = generate(["shape", "vessels", "tumours"], 3, calibration.grid, rng)
signals = Receiver(matrix, calibration.selection, 20.0, rng).frames(phantoms)

reconstruct = Reconstructor(calibration, threads=1)
result = reconstruct(signals)

print(reconstruct.runs_on)
for number, (quality, snr) in enumerate(zip(psnr(result.image, phantoms), result.snr_db, strict=True)):
    print(f"frame {number}: SNR found {snr:.1f} dB, PSNR of the image {quality:.1f} dB")

figure = plots.reconstruction_figure(result.image, result.std, calibration.field_of_view)
plots.save(figure, Path("first_image.png"))
