"""A network of your own grid: train, export, reconstruct. Needs the extra "train": pip install 'mpi-fast[train]'.

The model of the package serves 19 x 19 voxels best; here a network is made for 12 x 10. Five seconds of training show
the way and no more: MINUTES=180 and the sizes in the comments are what a good network takes.
"""

import os
from pathlib import Path

import numpy as np

from mpi_fast import Reconstructor
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.export.__main__ import make_bundle
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.loop import train
from mpi_fast.training.network import NetworkConfig

grid = (12, 10)
minutes = float(os.environ.get("MINUTES", 5 / 60))
short = minutes < 1

config = TrainingConfig(
    minutes=minutes,
    grid=grid,
    scanners=3 if short else 256,
    phantoms=60 if short else 60_000,
    groups=2 if short else 8,
    processes=1 if short else 2,
    network=NetworkConfig(8, 16, 16, 1, 8, 16, 1) if short else NetworkConfig(),
)
checkpoint = train(config, Path("model.pt"), device="cpu")
bundle = make_bundle(checkpoint, Path("bundle"), steps=2, samples=2, consensus=2)  # few, to be quick
for row in bundle.manifest["parity"]:
    print(f"{row['artefact']} differs from the trained network by {row['relative']:.1e}")

rng = np.random.default_rng(0)
matrix = measure_matrix(Scanner(grid=grid, voxel_size=(3e-3, 3e-3), sub_voxels=1), 20.0, rng)
calibration = matrix.calibrate()
phantoms = generate("tumours", 2, grid, rng)
signals = Receiver(matrix, calibration.selection, 20.0, rng).frames(phantoms)
result = Reconstructor(calibration, "bundle", threads=1, samples=2, steps=2, consensus=2)(signals)
print(f"images {result.image.shape}, PSNR {', '.join(f'{q:.1f}' for q in psnr(result.image, phantoms))} dB")
