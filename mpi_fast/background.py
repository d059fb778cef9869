"""Background frames: the signals of a scanner without a sample, from which its noise is estimated.

A single sample that is a hundred times too large would corrupt the mean of all frames and every image. So before
background frames are combined, values that are far from those acquired just before and after them are replaced.
"""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError, MPIFastWarning

Complex = NDArray[np.complexfloating[Any, Any]]
# The distance of an outlier from its neighbours, in units of the usual distance. Gaussian noise has no such values,
# Student's t with 3 degrees of freedom has one in millions.
FAR = 80.0
# If most rows of a channel are this far, the whole frame is an outlier, because a wrong sample affects all frequencies.
ALL_FAR, SOME_ROWS = 6.0, 8
NEIGHBOURS = (-2, -1, 1, 2)
ROWS_AT_ONCE = 1 << 21  # numbers processed at once, to limit memory


def without_outliers(
    frames: Complex, channel: NDArray[np.integer[Any]] | None = None
) -> tuple[Complex, NDArray[np.int64]]:
    """Replace single outliers among background frames by the median of their neighbours.

    A value is compared with the two before and the two after it. An outlier is far from all of them; a drift or a step
    between blocks of background frames is not. With fewer than three frames no outlier can be found.

    Parameters
    ----------
    frames : (rows, B) complex
        Background frames in the order of acquisition.
    channel : (rows,) int, optional
        Channel of each row; by default all rows have the same.

    Returns
    -------
    frames : (rows, B) complex
        The same array if there are no outliers.
    replaced : (B,) int
        Number of values replaced in each frame.
    """
    rows, count = frames.shape
    replaced = np.zeros(count, np.int64)
    if count < 3:
        return frames, replaced
    near = np.empty((rows, count), np.float32)
    step = max(1, ROWS_AT_ONCE // count)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, rows, step):
            near[start : start + step] = _distance_to_nearest(frames[start : start + step])
    usual = np.median(near, axis=1)
    positive = usual[usual > 0]
    if positive.size:  # coarsely rounded rows repeat their values and do not show their noise
        usual = np.maximum(usual, 0.1 * np.median(positive))
    outlier = near > FAR * usual[:, None]
    relative = near / np.where(usual > 0, usual, np.inf)[:, None]
    labels = np.zeros(rows, np.int64) if channel is None else channel
    for one in np.unique(labels):
        if (labels == one).sum() >= SOME_ROWS:
            outlier[labels == one] |= np.median(relative[labels == one], axis=0) > ALL_FAR
    if not outlier.any():
        return frames, replaced
    out = frames.copy()
    for row, frame in zip(*np.nonzero(outlier), strict=True):
        others = [frame + k for k in NEIGHBOURS if 0 <= frame + k < count and not outlier[row, frame + k]]
        values = frames[row, others or np.flatnonzero(~outlier[row])]
        out[row, frame] = np.median(values.real) + 1j * np.median(values.imag)
    replaced += outlier.sum(axis=0)
    return out, replaced


def _distance_to_nearest(frames: Complex) -> NDArray[np.float32]:
    """Distance of every value (rows, B) to the nearest of its neighbours in time."""
    near = np.full(frames.shape, np.inf, np.float32)
    for lag in (1, 2):
        apart = np.abs(frames[:, lag:] - frames[:, :-lag]).astype(np.float32)
        np.minimum(near[:, lag:], apart, out=near[:, lag:])
        np.minimum(near[:, :-lag], apart, out=near[:, :-lag])
    return near


def warn_of_outliers(replaced: NDArray[np.int64], where: str, level: int = 3) -> None:
    """Warn once, naming the background frame with most outliers; ``replaced`` as `without_outliers` counts them."""
    frames = np.flatnonzero(replaced)
    if frames.size:
        worst = int(frames[replaced[frames].argmax()])
        more = f", and {frames.size - 1} other frames have some" if frames.size > 1 else ""
        warnings.warn(
            f"{where}: background frame {worst} (of {len(replaced)}, from 0) has {replaced[worst]} values far from "
            f"those before and after it{more}: outliers, replaced by their neighbours",
            MPIFastWarning,
            stacklevel=level,
        )


def shows_noise(frames: Complex) -> bool:
    """Whether background frames (rows, B) show noise: whether they are not all the same."""
    return bool((frames != frames[:, :1]).any())


@dataclass(frozen=True)
class Summary:
    """Statistics of the background frames of a measurement.

    Attributes
    ----------
    frames : int
        Number of finite frames.
    mean : (M,) complex128
    energy : (M,) float64
        Sum of squared distances from the mean.
    """

    frames: int
    mean: NDArray[np.complex128]
    energy: NDArray[np.float64]


def summarise(chunks: Iterable[Complex], where: str, channel: NDArray[np.integer[Any]] | None = None) -> Summary:
    """Combine background frames, given as arrays (frames, M), without outliers and frames with NaN or Inf.

    ``channel`` (M,) is the channel of each row.

    Raises
    ------
    InputError
        If no frame is finite.
    """
    frames, broken, read = 0, 0, 0
    mean: Any = np.zeros(1, np.complex128)
    energy: Any = np.zeros(1)
    replaced: list[NDArray[np.int64]] = []
    for chunk in chunks:
        whole = np.isfinite(chunk).all(axis=1)
        read, broken = read + len(chunk), broken + int((~whole).sum())
        cleaned, counts = without_outliers(chunk[whole].T, channel)
        counted = np.zeros(len(chunk), np.int64)
        counted[whole] = counts
        replaced.append(counted)
        count = cleaned.shape[1]
        if not count:
            continue
        # Combines two means and two sums of squares (Chan, Golub and LeVeque 1983).
        here = cleaned.mean(axis=1, dtype=np.complex128)
        energy = energy + np.square(np.abs(cleaned - here[:, None]), dtype=np.float64).sum(axis=1)
        energy = energy + np.square(np.abs(here - mean)) * (frames * count / (frames + count))
        mean = mean + (here - mean) * (count / (frames + count))
        frames += count
    if broken:
        text = f"{where}: NaN or Inf in {broken} of {read} background frames"
        if not frames:
            raise InputError(text)
        warnings.warn(f"{text}: left out", MPIFastWarning, stacklevel=3)
    if replaced:
        warn_of_outliers(np.concatenate(replaced), where, 4)
    return Summary(frames, mean, energy)
