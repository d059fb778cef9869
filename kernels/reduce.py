"""Launcher of reduce.cu and its reference: from complex signals to reduced signals y and energy of each frame."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.kernels.launch import Array, Device, Kernel, expect

KERNEL = Kernel("reduce")
ROWS, FRAMES, CHUNK, THREADS = 8, 4, 512, 256  # as in reduce.cu
SHARED = FRAMES * (8 * CHUNK + 8 * THREADS)


@dataclass(frozen=True)
class Projection:
    """Projection of a calibration, by which signals are reduced, on a device.

    Attributes
    ----------
    matrix : (M, R) complex128
        ``Calibration.projection``, transposed.
    weights : (M,) float64
        ``Calibration.weights``.
    """

    matrix: Array
    weights: Array

    @classmethod
    def upload(cls, calibration: Calibration, device: Device) -> "Projection":
        """Copy the arrays of a calibration to a device."""
        return cls(
            device.upload(np.ascontiguousarray(calibration.projection.T, dtype=np.complex128)),
            device.upload(np.asarray(calibration.weights, dtype=np.float64)),
        )


def reduce(device: Device, projection: Projection, signals: Array, y: Array, energy: Array) -> None:
    """Enqueue the reduction of frames.

    Parameters
    ----------
    device : Device
        Device that runs the kernel.
    projection : Projection
        Projection of the calibration, on the device.
    signals : (F, M) complex64
        Selected rows, background-corrected. They are not checked for NaN and Inf, which make the frame's image NaN.
    y : (F, R) float64
        Output: reduced signals.
    energy : (F,) float64
        Output: energy of the whitened rows.

    Raises
    ------
    InputError
        For shapes and types that do not fit.
    """
    num_rows, rank = projection.matrix.shape
    frames = signals.shape[0]
    if frames < 1:
        raise InputError(f"reduce: signals {tuple(signals.shape)}, expected at least one frame")
    expect(
        "reduce",
        {
            "signals": (signals, (frames, num_rows), np.complex64),
            "y": (y, (frames, rank), np.float64),
            "energy": (energy, (frames,), np.float64),
        },
    )
    device.launch(
        KERNEL,
        (-(-rank // ROWS), -(-frames // FRAMES)),
        THREADS,
        SHARED,
        (
            signals,
            projection.matrix,
            projection.weights,
            np.int32(frames),
            np.int32(num_rows),
            np.int32(rank),
            y,
            energy,
        ),
    )


def reference(calibration: Calibration, rows: NDArray[np.complex64]) -> tuple[NDArray[np.float64], ...]:
    """The outputs of `reduce` in double precision: y (F, R) and energy (F,)."""
    double = rows.astype(np.complex128)
    y: NDArray[np.float64] = (double @ calibration.projection.T).real
    return y, np.square(np.abs(double * calibration.weights)).sum(axis=1)
