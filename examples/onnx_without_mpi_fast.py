"""The network in a program without mpi-fast, with only NumPy, h5py and ONNX Runtime.

A calibration saved by ``mpi-fast calibrate -o scanner.h5`` contains the arrays that reduce a frame. ``plane.onnx`` of
the model (``volume.onnx`` for volumes) computes image, uncertainty and quantiles of the errors. Every step is explicit,
so that it can be written in any language with ONNX Runtime.

    python examples/onnx_without_mpi_fast.py scanner.h5 plane.onnx signals.npy [images.npz]

``signals.npy``: (frames, channels, samples) in volts, background subtracted.
"""

import sys

import h5py
import numpy as np
import onnxruntime

calibration, model, signals, output = [*sys.argv[1:4], *(sys.argv[4:] or ["images.npz"])]

with h5py.File(calibration) as file:
    nz, ny, nx = (1, 1, *file["grid"][()].tolist())[-3:]
    selection = file["selection"][()].astype(bool)  # (channels, frequencies): the rows in use
    weights = file["weights"][()]  # (M,): inverse noise of each row
    singular_values = file["singular_values"][()]  # (R,)
    basis = file["basis"][()]  # (N, R), x fastest
    projection = file["projection"][()]  # (R, M) complex

# 1. Rows: the selected frequencies of an unnormalised forward FFT of each period, exp(-2 pi i k n / V).
rows = np.fft.rfft(np.load(signals), axis=-1)[:, selection]  # (frames, M)

# 2. Reduction: R real numbers, and the noise of each frame from the part outside the matrix's range.
y = (rows @ projection.T).real
whitened = rows * weights
energy = (whitened.real**2 + whitened.imag**2).sum(axis=1)
total, rank = 2 * len(weights), len(singular_values)
variance = np.maximum((energy - (y**2).sum(axis=1)) / (total - rank), energy / total * 1e-5)

# 3. The network. It can take a noisy image as well; precision 0 means that there is none.
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
inputs = {
    "y": y.astype(np.float32),
    "noise": np.sqrt(variance).astype(np.float32),
    "singular_values": singular_values,
    "basis": basis.reshape(nz, ny, nx, rank),
    "noisy": np.zeros((len(y), nz, ny, nx), np.float32),
    "precision": np.zeros(len(y), np.float32),
}
image, std, quantiles = session.run(["image", "std", "quantiles"], inputs)

# 4. Intervals: half of a frame's errors are below quantiles[:, 0] std, 95 % below quantiles[:, 1] std.
half_width = quantiles[:, 1, None, None, None] * std
np.savez(output, image=image, std=std, lower=np.maximum(image - half_width, 0), upper=image + half_width)
print(f"wrote {output}: {len(image)} images of {nz} x {ny} x {nx} voxels")
