"""MATLAB arrays: a system matrix and measurements in .mat files, without MDF.

SciPy makes the files here as `save S.mat S` would in MATLAB, where the voxels of an image are counted
along its columns: reshape(S(:, k), ny, nx).
"""

from pathlib import Path

import numpy as np
from scipy.io import savemat

from mpi_fast import Reconstructor, plots
from mpi_fast.arrays import calibrate_array, frames_of, read_array
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

# -- what a lab would have: 19 x 19 voxels, one receive channel, complex spectra from 80 kHz on -----------------------
rng = np.random.default_rng(0)
scanner = Scanner(sub_voxels=2)
matrix = measure_matrix(scanner, 25.0, rng)
band = (scanner.frequencies >= 80e3) & (scanner.frequencies < 600e3)
spectra = (matrix.foreground - matrix.background.mean(axis=2, keepdims=True))[0, band]
down_columns = np.arange(scanner.grid[0] * scanner.grid[1]).reshape(scanner.grid).ravel(order="F")
savemat("S.mat", {"S": spectra[:, down_columns]})
selection = np.zeros_like(matrix.truth[..., 0], dtype=bool)
selection[0, band] = True
phantoms = generate(["shape", "concentration", "tumours"], 3, scanner.grid, rng)
savemat("b.mat", {"b": Receiver(matrix, selection, 25.0, rng).frames(phantoms)[:, 0, band].T})

# -- and what it would write ------------------------------------------------------------------------------------------
calibration = calibrate_array(read_array("S.mat"), grid=(19, 19), field_of_view=(0.038, 0.038), fastest="y")
result = Reconstructor(calibration, threads=1)(frames_of(read_array("b.mat"), calibration))

print(
    f"{calibration.num_rows} rows; PSNR of the images {', '.join(f'{q:.1f}' for q in psnr(result.image, phantoms))} dB"
)
plots.save(plots.reconstruction_figure(result.image, result.std, calibration.field_of_view), Path("matlab_arrays.png"))
np.savez("images.npz", image=result.image, std=result.std)
