"""Launcher of prepare.cu and its reference: noise level, scale and presence of each frame, and the condition."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import SNR_CEILING_DB, Calibration
from mpi_fast.guidance import (
    CERTAIN,
    DETECTION,
    EMPTY,
    SIGNAL_PER_IMAGE,
    Likelihood,
    signal_presence,
    signal_scale,
)
from mpi_fast.kernels.launch import (
    STORAGE,
    THREADS,
    Array,
    Device,
    Kernel,
    Scalar,
    expect,
    product_floats,
    scalar_define,
    strides,
)

STATISTICS: Final = ("noise", "scale", "presence", "snr_db", "noise_floor")
"""Rows of what is known of each frame: noise as `Likelihood` takes it, the others as `Reconstruction` gives them."""


@dataclass(frozen=True)
class Basis:
    """S and V of a calibration, on a device.

    Attributes
    ----------
    singular_values : (R,) float32
    basis, transposed : (N, R), (R, N) float32
        V and its transpose: each is read along its rows by one of the two products.
    mean_explained : (R,) float32
        Mean of V^2 over the voxels.
    thresholds : (5,) float64
        Of `guidance`, and the ratio of noise to signal energy below which no frame is believed to be.
    power : float
        Sum of S^2.
    num_rows : int
        M of the calibration.
    """

    singular_values: Array
    basis: Array
    transposed: Array
    mean_explained: Array
    thresholds: Array
    power: float
    num_rows: int

    @classmethod
    def upload(cls, calibration: Calibration, device: Device) -> "Basis":
        """Copy to the device."""
        basis = np.ascontiguousarray(calibration.basis, dtype=np.float32)
        limits = (DETECTION, EMPTY, CERTAIN, SIGNAL_PER_IMAGE, 10 ** (-SNR_CEILING_DB / 10))
        return cls(
            device.upload(np.asarray(calibration.singular_values, dtype=np.float32)),
            device.upload(basis),
            device.upload(np.ascontiguousarray(basis.T)),
            device.upload(np.square(basis).mean(axis=0)),
            device.upload(np.array(limits)),
            float(np.square(calibration.singular_values, dtype=np.float64).sum()),
            calibration.num_rows,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(N, R)."""
        voxels, rank = self.basis.shape
        return int(voxels), int(rank)


def prepare(
    device: Device,
    basis: Basis,
    reduced: Array,
    energy: Array,
    y: Array,
    statistics: Array,
    condition: Array,
    *,
    scalar: Scalar = "float32",
    channels_last: bool = False,
) -> None:
    """Enqueue the preparation of frames.

    Parameters
    ----------
    device, basis
        Where, and the calibration there.
    reduced, energy : (F, R), (F,) float64
        As `reduce.reduce` writes them.
    y : (F, R) float32
        Written: reduced signals of images of root-mean-square about one.
    statistics : (5, F) float32
        Written: see `STATISTICS`.
    condition : (F, 2, N) or, with ``channels_last``, (F, N, 2), of type ``scalar``
        Written: posterior mean under a white prior, and its deviation.

    Raises
    ------
    InputError
        For shapes and types that do not fit.
    """
    (voxels, rank), frames = basis.shape, len(energy)
    expect(
        "prepare",
        {
            "reduced": (reduced, (frames, rank), np.float64),
            "energy": (energy, (frames,), np.float64),
            "y": (y, (frames, rank), np.float32),
            "statistics": (statistics, (len(STATISTICS), frames), np.float32),
            "condition": (condition, (frames, *((voxels, 2) if channels_last else (2, voxels))), STORAGE[scalar]),
        },
    )
    device.launch(
        Kernel("prepare", scalar_define(scalar)),
        (frames, 1),
        THREADS,
        8 * THREADS + 4 * (2 * rank + product_floats(voxels, 2)),
        (
            reduced,
            energy,
            basis.singular_values,
            basis.transposed,
            basis.mean_explained,
            basis.thresholds,
            np.float64(basis.power),
            np.int32(basis.num_rows),
            np.int32(rank),
            np.int32(voxels),
            y,
            statistics,
            condition,
            *strides(voxels, 2, channels_last),
        ),
    )


def reference(
    calibration: Calibration, reduced: NDArray[np.float64], energy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """What `prepare` writes: y (F, R), statistics (5, F), condition (F, 2, N), in double precision."""
    total, rank = 2 * calibration.num_rows, calibration.rank
    variance = (energy - np.square(reduced).sum(axis=1)) / (total - rank)
    variance = np.maximum(variance, energy / total * 10 ** (-SNR_CEILING_DB / 10))
    level = np.sqrt(variance)
    scale = signal_scale(reduced, calibration.singular_values, level).astype(np.float64)
    unit = np.where(scale > 0, scale, 1.0)
    noise = np.where(scale > 0, level / unit, 1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        signal = np.maximum(energy - total * variance, 0.0) / (total * variance)
        snr_db = np.where(energy > 0, 10 * np.log10(signal), -np.inf)

    double: Any = reduced / unit[:, None], calibration.singular_values, calibration.basis, noise
    y, singular, basis, noise = (array.astype(np.float64) for array in double)
    likelihood = Likelihood(y, singular, basis, noise)
    gain = likelihood.gain(1.0)
    floor = np.sqrt(np.square(gain * noise[:, None]) @ np.square(basis).mean(axis=0)) * scale
    condition = np.stack([(gain * y) @ basis.T, likelihood.deviation(1.0)], axis=1)
    presence = signal_presence(reduced, level)
    return y, np.stack([noise, scale, presence, snr_db, floor]), condition
