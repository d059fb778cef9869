"""Launcher of finish.cu and its reference: samples -> image and uncertainty."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.consensus import settle, spread_about
from mpi_fast.kernels.launch import Array, Device, Kernel, expect
from mpi_fast.kernels.prepare import STATISTICS

KERNEL = Kernel("finish")
THREADS = 128  # as in finish.cu


def finish(
    device: Device,
    x: Array,
    statistics: Array,
    *,
    agreed: Array | None = None,
    mean: Array | None = None,
    image: Array | None = None,
    deviation: Array | None = None,
) -> None:
    """Enqueue the statistics over samples, those that are asked for.

    Parameters
    ----------
    device : Device
        Where.
    x : (F, S, N) float32
        Denoised samples.
    statistics : (7, F) float32
        As `prepare.prepare` writes them.
    agreed : (F, N) float32, optional
        What `consensus.agree` found; then the image is that of `consensus.settle`, not the samples' mean.
    mean : (F, N) float32, optional
        Written: the one or the other, for images of root-mean-square about one.
    image, deviation : (F, N) float32, optional
        Written: `Reconstruction.image` and ``std``.

    Raises
    ------
    InputError
        For shapes and types that do not fit.
    """
    frames, samples, voxels = (int(n) for n in x.shape)
    results = {"agreed": agreed, "mean": mean, "image": image, "deviation": deviation}
    expect(
        "finish",
        {
            "x": (x, (frames, samples, voxels), np.float32),
            "statistics": (statistics, (len(STATISTICS), frames), np.float32),
            **{name: (array, (frames, voxels), np.float32) for name, array in results.items() if array is not None},
        },
    )
    targets = (np.uintp(0) if array is None else array for array in results.values())
    arguments = (x, statistics, np.int32(samples), np.int32(voxels), *targets)
    device.launch(KERNEL, (-(-voxels // THREADS), frames), THREADS, 0, arguments)


def reference(
    x: NDArray[np.floating[Any]],
    statistics: NDArray[np.floating[Any]],
    agreed: NDArray[np.floating[Any]] | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What `finish` writes: mean, image and deviation, (F, N) each, in double precision."""
    _, scale, presence, _, _, share, width = statistics.astype(np.float64)
    double = x.astype(np.float64)
    if agreed is None:
        middle = double.mean(axis=1)
        deviation = spread_about(middle, double)
    else:
        middle, deviation = settle(double, agreed.astype(np.float64), share, width)
    return middle, np.maximum(middle, 0.0) * (presence * scale)[:, None], deviation * scale[:, None]
