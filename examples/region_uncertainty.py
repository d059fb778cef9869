"""The amount of tracer in a region, and its uncertainty.

The standard deviation of a sum depends on the correlation between the errors of its voxels, which a map of deviations
does not contain. Fully correlated errors give the largest value, independent errors a smaller one, and anticorrelated
errors of neighbours an even smaller one. Posterior samples show the actual value. They are images that explain the
signals, with the probability that the network gives them.
"""

from pathlib import Path

import numpy as np

from mpi_fast import Reconstructor, plots
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

rng = np.random.default_rng(0)
matrix = measure_matrix(Scanner(sub_voxels=2), 20.0, rng)
calibration = matrix.calibrate()
phantoms = generate("tumours", 6, calibration.grid, rng)
signals = Receiver(matrix, calibration.selection, 20.0, rng).frames(phantoms)

reconstruct = Reconstructor(calibration, threads=1)
result = reconstruct(signals)
samples = reconstruct.samples(signals, 24)  # (frames, 24, 19, 19)

# The region: a circle with a diameter of 10 mm in the middle of the field of view. Any boolean array is possible.
ny, nx = calibration.grid
height, width = (1e3 * length for length in calibration.field_of_view)
y, x = np.meshgrid((np.arange(ny) + 0.5) / ny - 0.5, (np.arange(nx) + 0.5) / nx - 0.5, indexing="ij")
region = np.hypot(height * y, width * x) < 5

found, truth = result.image[:, region].sum(axis=1), phantoms[:, region].sum(axis=1)
deviation = samples[:, :, region].sum(axis=2).std(axis=1)
alone, alike = np.sqrt((result.std[:, region] ** 2).sum(axis=1)), result.std[:, region].sum(axis=1)

print(f"region of {region.sum()} voxels; sums in concentrations of the delta sample, with standard deviations")
for frame in range(len(found)):
    map_says = f"independent {alone[frame]:.2f}, alike {alike[frame]:.2f}"
    print(f"frame {frame}: {found[frame]:.2f} +- {deviation[frame]:.2f} ({map_says}), in truth {truth[frame]:.2f}")

figure = plots.reconstruction_figure(result.image[:3], result.std[:3], calibration.field_of_view)
plots.save(figure, Path("region_uncertainty.png"))
