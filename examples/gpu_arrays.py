"""Input and output arrays on the GPU: the loop of a live program, which neither waits nor allocates for a frame.

Needs an NVIDIA GPU and CuPy, pip install 'mpi-fast[gpu]'. Tensors and streams of PyTorch work as well.
"""

import numpy as np

from mpi_fast import MPIFastError, Reconstructor
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.metrics import psnr
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

rng = np.random.default_rng(0)
matrix = measure_matrix(Scanner(sub_voxels=1), snr_db=20.0, rng=rng)
calibration = matrix.calibrate()
phantoms = generate("vessels", 6, calibration.grid, rng)
frames = calibration.select(Receiver(matrix, calibration.selection, 20.0, rng).frames(phantoms))
try:
    reconstruct = Reconstructor(calibration, device="cuda")
    import cupy
except (MPIFastError, ImportError):
    print("There is no GPU here, or no CuPy.")
    raise SystemExit from None

reconstruct.warmup(1)
stream = cupy.cuda.Stream(non_blocking=True)  # for all work of this program
measured = cupy.asarray(frames)
signals = cupy.empty((1, calibration.num_rows), np.complex64)
images = cupy.empty((len(frames), *calibration.grid), np.float32)
cupy.cuda.get_current_stream().synchronize()
out = reconstruct.enqueue(signals).wait()  # its arrays are used again for every frame

with stream:
    for number in range(len(frames)):
        signals[:] = measured[number]  # after the previous frame has been read
        reconstruct.enqueue(signals, out=out, stream=stream)
        images[number] = out.image[0]  # after this image has been written
    print(f"PSNR {psnr(images.get(), phantoms).mean():.1f} dB")
