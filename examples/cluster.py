"""Many frames on a Ray cluster: the images of one process, made by every core or GPU of the cluster at once.

``python cluster.py`` starts a cluster on this machine, or joins the one that runs there; ``python cluster.py ADDRESS``
joins another. Of files, ``mpi-fast reconstruct long.mdf -c scanner.h5 --cluster ADDRESS`` does the same.
"""

import sys
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mpi_fast import Reconstructor
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

rng = np.random.default_rng(0)
matrix = measure_matrix(Scanner(), snr_db=20.0, rng=rng)
calibration = matrix.calibrate()
receiver = Receiver(matrix, calibration.selection, 20.0, rng)
phantoms = [generate("vessels", 8, calibration.grid, rng) for _ in range(6)]


def chunks() -> Iterator[NDArray[np.complex64]]:
    """Frames as they come, here 8 at a time; only few chunks are asked for before their images are taken."""
    for images in phantoms:
        yield receiver.frames(images)


address = sys.argv[1] if len(sys.argv) > 1 else "auto"
reconstruct = Reconstructor(calibration, threads=1)  # of each actor
for truth, result in zip(phantoms, reconstruct.stream(chunks(), cluster=address), strict=True):
    print(f"{len(result.image)} images, PSNR {psnr(result.image, truth).mean():.1f} dB")
