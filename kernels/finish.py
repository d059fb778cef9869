"""Launcher of finish.cu and its reference: samples -> image and uncertainty."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.kernels.launch import Array, Device, Kernel, expect
from mpi_fast.kernels.prepare import STATISTICS

KERNEL = Kernel("finish")
THREADS = 128  # as in finish.cu


def finish(device: Device, x: Array, statistics: Array, image: Array, deviation: Array) -> None:
    """Enqueue the statistics over samples.

    Parameters
    ----------
    device : Device
        Where.
    x : (F, S, N) float32
        Denoised samples.
    statistics : (5, F) float32
        As `prepare.prepare` writes them.
    image, deviation : (F, N) float32
        Written: `Reconstruction.image` and ``std``.

    Raises
    ------
    InputError
        For shapes and types that do not fit.
    """
    frames, samples, voxels = (int(n) for n in x.shape)
    expect(
        "finish",
        {
            "x": (x, (frames, samples, voxels), np.float32),
            "statistics": (statistics, (len(STATISTICS), frames), np.float32),
            "image": (image, (frames, voxels), np.float32),
            "deviation": (deviation, (frames, voxels), np.float32),
        },
    )
    arguments = (x, statistics, np.int32(samples), np.int32(voxels), image, deviation)
    device.launch(KERNEL, (-(-voxels // THREADS), frames), THREADS, 0, arguments)


def reference(
    x: NDArray[np.floating[Any]], statistics: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What `finish` writes, (F, N) twice, in double precision."""
    _, scale, presence, _, _ = statistics.astype(np.float64)
    image = np.maximum(x.mean(axis=1, dtype=np.float64), 0.0) * (presence * scale)[:, None]
    return image, x.std(axis=1, dtype=np.float64) * scale[:, None]
