"""How much tracer is in a region, and how sure that is.

The standard deviation of a sum depends on how the errors of its voxels go together, which a map of standard deviations
does not say. Two bounds need no assumption but one: errors that have nothing to do with each other give the smallest
interval, errors that are all alike the largest. The truth lies between; a claim should use the larger one.
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
phantoms = generate("tumours", 32, calibration.grid, rng)
result = Reconstructor(calibration, threads=1)(Receiver(matrix, calibration.selection, 20.0, rng).frames(phantoms))

# The region: a circle of 10 mm across, in the middle of the field of view. Any array of True and False does.
ny, nx = calibration.grid
height, width = (1e3 * length for length in calibration.field_of_view)
y, x = np.meshgrid((np.arange(ny) + 0.5) / ny - 0.5, (np.arange(nx) + 0.5) / nx - 0.5, indexing="ij")
region = np.hypot(height * y, width * x) < 5

found = result.image[:, region].sum(axis=1)
alone = np.sqrt((result.std[:, region] ** 2).sum(axis=1))
alike = result.std[:, region].sum(axis=1)
truth = phantoms[:, region].sum(axis=1)

print(f"region of {region.sum()} voxels; sums in concentrations of the delta sample")
for frame in range(4):
    print(
        f"frame {frame}: {found[frame]:.2f}, +- {1.96 * alone[frame]:.2f} to {1.96 * alike[frame]:.2f}; "
        f"in truth {truth[frame]:.2f}"
    )
for title, deviation in {"independent": alone, "alike": alike}.items():
    held = np.abs(found - truth) <= 1.96 * deviation
    print(f"95 % intervals, errors {title}: hold the truth in {held.sum()} of {len(held)} frames")

figure = plots.reconstruction_figure(result.image[:3], result.std[:3], calibration.field_of_view)
plots.save(figure, Path("region_uncertainty.png"))
