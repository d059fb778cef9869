"""Faults of a frame, as bits of a number, and the faults that its samples alone show."""

from enum import IntFlag
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError

RUN = 3  # this many equal samples in a row make a plateau
# A plateau has this many times more samples than the next digitisation step. Coarse rounding also makes plateaus at the
# top of every sine, but with only two or three times as many samples as the next digit.
CROWD = 8


class Flag(IntFlag):
    """Faults of one frame; `Reconstruction.flags` holds their sum."""

    BAD = 1
    """NaN, Inf or numbers too large to compute with: the image is NaN."""
    CLIPPED = 2
    """Samples stay at a channel's largest or smallest value: the receiver was overdriven, the image is wrong."""
    EMPTY = 4
    """Noise alone explains the signals: the image is zero."""
    FOREIGN = 8
    """The signals do not fit the calibration, judged by this frame alone or by the verdict over all frames so far."""
    DEAD = 16
    """A channel that the calibration uses is silent: zero, or constant."""


def is_strict(on_bad_frame: str) -> bool:
    """Whether the option is ``stop`` rather than ``mark``; raises InputError for anything else."""
    if on_bad_frame not in ("mark", "stop"):
        raise InputError(f"on bad frame '{on_bad_frame}': expected mark or stop")
    return on_bad_frame == "stop"


def names_of(flags: int) -> list[str]:
    """``5`` -> ["bad", "empty"]."""
    return [str(flag.name).lower() for flag in Flag if flag & flags]


def of_samples(samples: NDArray[Any], used: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """CLIPPED and DEAD for frames of samples.

    Parameters
    ----------
    samples : (F, C, V) real
        Samples as stored, because any processing smoothes a plateau.
    used : (C,) bool
        Channels that the calibration uses.
    """
    with np.errstate(invalid="ignore"):
        steady = (samples == samples[..., :1]).all(axis=2)
        clipped = _clipped(samples) | _clipped(samples, top=False)
    dead = (steady & used).any(axis=1)
    return np.asarray(Flag.CLIPPED * (clipped & used & ~steady).any(axis=1) + Flag.DEAD * dead, np.uint8)


def of_rows(rows: NDArray[Any], channel: NDArray[np.integer]) -> NDArray[np.uint8]:
    """DEAD for frames of selected rows (F, M) in which all rows of one channel, ``channel`` (M,), are zero."""
    dead = np.zeros(len(rows), bool)
    for one in np.unique(channel):
        dead |= ~rows[:, channel == one].any(axis=1)
    return np.asarray(Flag.DEAD * dead, np.uint8)


def _clipped(samples: NDArray[Any], top: bool = True) -> NDArray[np.bool_]:
    """Whether each channel (F, C) of samples (F, C, V) has a plateau at its largest, or smallest, value."""
    extreme = samples.max(axis=2, keepdims=True) if top else samples.min(axis=2, keepdims=True)
    at = samples == extreme
    run = at[..., : -RUN + 1].copy()
    for shift in range(1, RUN):
        run &= at[..., shift : at.shape[2] - RUN + 1 + shift]
    found = np.asarray(run.any(axis=2))
    for frame, channel in zip(*np.nonzero(found), strict=True):
        found[frame, channel] = _is_crowded(
            samples[frame, channel].astype(np.float64), float(extreme[frame, channel, 0])
        )
    return found


def _is_crowded(values: NDArray[np.float64], extreme: float) -> bool:
    """Whether far more values are at the extreme than within the next digitisation step.

    If more than half of all values are, the signal is at rest: between pulses, or within one digit of the converter.
    """
    distance = np.sort(np.abs(values - extreme))
    steps = np.diff(distance)
    steps = steps[steps > 0]
    count = int((distance == 0).sum())
    if not steps.size:
        return False
    near = int(((distance > 0) & (distance <= 1.01 * steps.min())).sum())
    return CROWD * max(near, 0.5) <= count <= len(values) / 2
