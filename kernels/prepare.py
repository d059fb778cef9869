"""Launcher of prepare.cu and white.cu and their reference: noise, scale and linear estimates of each frame."""

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
THREADS = 768  # threads of a block, as in prepare.cu
CONDITION_CHANNELS = 2 * len(WIDTHS)  # posterior means for all widths, then the deviations for all widths
STATISTICS: Final = ("noise", "scale", "presence", "snr_db", "noise_floor")
"""Rows of the statistics of frames; the noise is that of `Likelihood`, snr_db and noise_floor of `Reconstruction`."""


@dataclass(frozen=True)
class Basis:
    """Singular value decomposition of a calibration, on a device.

    Attributes
    ----------
    singular_values : (R,) float32
        Singular values S.
    transposed : (R, N) float32
        V^T, which nearly all kernels read along its rows.
    mean_explained : (R,) float32
        Mean of V^2 over the voxels.
    widths : (W,) float32
        `likelihood.WIDTHS`.
    thresholds : (5,) float64
        Thresholds of `likelihood`, and the lowest accepted ratio of noise energy to total energy of a frame.
    power : float
        Sum of S^2.
    num_rows : int
        Number of selected rows M.
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
        """Copy the arrays of a calibration to a device."""
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
        """Number of voxels N and rank R."""
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
    """Enqueue noise, scale, presence and linear estimates of frames.

    Parameters
    ----------
    device, basis : Device, Basis
        Device that runs the kernels, and the decomposition of the calibration on it.
    reduced, energy : (F, R), (F,) float64
        Output of `reduce.reduce`.
    y : (F, R) float32
        Output: reduced signals, scaled to images of root-mean-square about one.
    statistics : (5, F) float32
        Output: see `STATISTICS`.
    condition : (F, CONDITION_CHANNELS, N) float32
        Output: posterior means for white priors of all `WIDTHS`, then the posterior deviations.
    factors : (F, R, CONDITION_CHANNELS) float32, optional
        Output, if given: the factors of V in the condition. Then a second launch computes the condition from them on
        all multiprocessors, instead of one multiprocessor per frame. Volumes need this.

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
    """Shared memory for the partial sums of threads that share a voxel, in floats."""
    return max(THREADS // voxels - 1, 0) * voxels * CONDITION_CHANNELS


def reference(
    calibration: Calibration, reduced: NDArray[np.float64], energy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], ...]:
    """Outputs of `prepare` in double precision: y (F, R), statistics (5, F), condition (F, CONDITION_CHANNELS, N)."""
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
