"""Launcher of reduce.cu and its reference: complex signals -> y and energy of each frame."""

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
    """A calibration's side of the product, on a device.

    Attributes
    ----------
    matrix : (M, R) complex128
        ``Calibration.projection``, transposed.
    weights : (M,) float64
        ``Calibration.weights``.
    rows, positions : (M,) int32
        Where the selected rows are within a frame of selected rows, and within one of spectra.
    spectrum : (C, K)
        Shape of the spectra.
    """

    matrix: Array
    weights: Array
    rows: Array
    positions: Array
    spectrum: tuple[int, int]

    @classmethod
    def upload(cls, calibration: Calibration, device: Device) -> "Projection":
        """Copy to the device."""
        channels, frequencies = calibration.selection.shape
        return cls(
            device.upload(np.ascontiguousarray(calibration.projection.T, dtype=np.complex128)),
            device.upload(np.asarray(calibration.weights, dtype=np.float64)),
            device.upload(np.arange(calibration.num_rows, dtype=np.int32)),
            device.upload(np.flatnonzero(calibration.selection).astype(np.int32)),
            (channels, frequencies),
        )


def reduce(device: Device, projection: Projection, signals: Array, y: Array, energy: Array) -> None:
    """Enqueue the reduction of frames.

    Parameters
    ----------
    device : Device
        Where.
    projection : Projection
        Of the calibration.
    signals : (F, M) complex64 selected rows, or (F, C, K) complex64 spectra
        Background-corrected. NaN and Inf are not looked for: they make the frame's image NaN.
    y : (F, R) float64
        Written: reduced signals.
    energy : (F,) float64
        Written: energy of the whitened rows.

    Raises
    ------
    InputError
        For shapes and types that do not fit.
    """
    num_rows, rank = projection.matrix.shape
    frames, selected = signals.shape[0], len(signals.shape) == 2
    frame = (num_rows,) if selected else projection.spectrum
    if frames < 1:
        raise InputError(f"reduce: signals {tuple(signals.shape)}, expected at least one frame")
    expect(
        "reduce",
        {
            "signals": (signals, (frames, *frame), np.complex64),
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
            projection.rows if selected else projection.positions,
            projection.matrix,
            projection.weights,
            np.int32(frames),
            np.int32(np.prod(frame)),
            np.int32(num_rows),
            np.int32(rank),
            y,
            energy,
        ),
    )


def reference(calibration: Calibration, signals: NDArray[np.complex64]) -> tuple[NDArray[np.float64], ...]:
    """What `reduce` writes, (F, R) and (F,), in double precision."""
    rows = calibration.rows(signals).astype(np.complex128)
    y: NDArray[np.float64] = (rows @ calibration.projection.T).real
    return y, np.square(np.abs(rows * calibration.weights)).sum(axis=1)
