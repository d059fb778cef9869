"""Many frames on a Ray cluster: all cores or GPUs of the cluster make the same images as one process would.

``python ray_cluster.py`` joins the cluster on this machine, or starts one; ``python ray_cluster.py ADDRESS`` joins
another. For files, use ``mpi-fast reconstruct long.mdf -c scanner.h5 --cluster ADDRESS``.
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
    """Yield frames, here 8 at a time; only a few chunks are read before their images are used."""
    for images in phantoms:
        yield receiver.frames(images)


address = sys.argv[1] if len(sys.argv) > 1 else "auto"
reconstruct = Reconstructor(calibration, threads=1)  # threads of each actor
for truth, result in zip(phantoms, reconstruct.stream(chunks(), cluster=address), strict=True):
    print(f"{len(result.image)} images, PSNR {psnr(result.image, truth).mean():.1f} dB")
