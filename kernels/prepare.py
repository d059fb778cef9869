"""Launcher of prepare.cu and white.cu, and their reference: noise, scale and presence, and what signals alone say."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.kernels.launch import NOTHING, Array, Device, Kernel, expect
from mpi_fast.kernels.voxel_sums import launch_sums
from mpi_fast.likelihood import (
    CERTAIN,
    DETECTION,
    EMPTY,
    SIGNAL_PER_IMAGE,
    WIDTHS,
    Likelihood,
    signal_presence,
    signal_scale,
)
from mpi_fast.reduction import SNR_CEILING_DB

KERNEL, WHITE = (Kernel(name, (("WIDTHS", str(len(WIDTHS))),)) for name in ("prepare", "white"))
THREADS = 768  # of a block, as in prepare.cu
CONDITION_CHANNELS = 2 * len(WIDTHS)  # of each the posterior mean, then of each its deviation
STATISTICS: Final = ("noise", "scale", "presence", "snr_db", "noise_floor")
"""Rows of what is known of each frame: noise as `Likelihood` takes it, the others as `Reconstruction` gives them."""


@dataclass(frozen=True)
class Basis:
    """S and V of a calibration, on a device.

    Attributes
    ----------
    singular_values : (R,) float32
    transposed : (R, N) float32
        V^T, which nearly every kernel reads along its rows.
    mean_explained : (R,) float32
        Mean of V^2 over the voxels.
    widths : (W,) float32
        `likelihood.WIDTHS`.
    thresholds : (5,) float64
        Of `likelihood`, and the ratio of noise to signal energy below which no frame is believed to be.
    power : float
        Sum of S^2.
    num_rows : int
        M of the calibration.
    """

    singular_values: Array
    transposed: Array
    mean_explained: Array
    widths: Array
    thresholds: Array
    power: float
    num_rows: int

    @classmethod
    def upload(cls, calibration: Calibration, device: Device) -> "Basis":
        """Copy to the device."""
        basis = np.ascontiguousarray(calibration.basis, dtype=np.float32)
        quietest = 10 ** (-SNR_CEILING_DB / 10)
        limits = DETECTION, EMPTY, CERTAIN, SIGNAL_PER_IMAGE, quietest
        return cls(
            device.upload(np.asarray(calibration.singular_values, dtype=np.float32)),
            device.upload(np.ascontiguousarray(basis.T)),
            device.upload(np.square(basis).mean(axis=0)),
            device.upload(np.array(WIDTHS, dtype=np.float32)),
            device.upload(np.array(limits)),
            float(np.square(calibration.singular_values, dtype=np.float64).sum()),
            calibration.num_rows,
        )

    @property
    def shape(self) -> tuple[int, int]:
        """(N, R)."""
        rank, voxels = self.transposed.shape
        return int(voxels), int(rank)


def prepare(
    device: Device,
    basis: Basis,
    reduced: Array,
    energy: Array,
    y: Array,
    statistics: Array,
    condition: Array,
    factors: Array | None = None,
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
    condition : (F, CONDITION_CHANNELS, N) float32
        Written: what the signals alone say under white priors of each of `WIDTHS`, means, then deviations.
    factors : (F, R, CONDITION_CHANNELS) float32, optional
        Written, where given: what V is multiplied by. Then all multiprocessors make the condition of that, in a launch
        of its own, and not one for each frame: for images that one would be busy with for too long.

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
            "condition": (condition, (frames, CONDITION_CHANNELS, voxels), np.float32),
        },
    )
    alone = factors is None
    if factors is not None:
        expect("prepare", {"factors": (factors, (frames, rank, CONDITION_CHANNELS), np.float32)})
    device.launch(
        KERNEL,
        (frames, 1),
        THREADS,
        8 * THREADS + (4 * (CONDITION_CHANNELS * rank + partial_floats(voxels)) if alone else 0),
        (
            reduced,
            energy,
            basis.singular_values,
            basis.transposed,
            basis.mean_explained,
            basis.widths,
            basis.thresholds,
            np.float64(basis.power),
            np.int32(basis.num_rows),
            np.int32(rank),
            np.int32(voxels),
            y,
            statistics,
            condition if alone else NOTHING,
            NOTHING if alone else factors,
        ),
    )
    if not alone:
        arguments = basis.transposed, factors, basis.widths, np.int32(rank), np.int32(voxels), condition
        launch_sums(device, WHITE, voxels, (1, frames), CONDITION_CHANNELS, arguments)


def partial_floats(voxels: int) -> int:
    """Shared memory for the sums of threads that share a voxel, in floats."""
    return max(THREADS // voxels - 1, 0) * voxels * CONDITION_CHANNELS


def reference(
    calibration: Calibration, reduced: NDArray[np.float64], energy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """What `prepare` writes: y (F, R), statistics (5, F), condition (F, CONDITION_CHANNELS, N), in double precision."""
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
    presence = signal_presence(reduced, level)
    widths = np.array(WIDTHS)[:, None]
    gains = np.stack([likelihood.gain(width) for width in WIDTHS], axis=1)
    means, explained = (gains * y[:, None]) @ basis.T, (gains * singular) @ np.square(basis).T
    condition = np.concatenate([means, widths * np.sqrt(np.maximum(1.0 - explained, 1e-6))], axis=1)
    return y, np.stack([noise, scale, presence, snr_db, floor]), condition
