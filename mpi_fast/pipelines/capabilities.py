"""Calls that only some pipelines have: what they do with the others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.kernels.launch import Event
from mpi_fast.pipelines import Frames, Pipeline
from mpi_fast.reconstruction import Reconstruction


def warmup(pipeline: Pipeline, rows: NDArray[np.complex64]) -> None:
    """Reconstruct rows once, from the host and, if the pipeline supports it, from the GPU."""
    pipeline(rows)
    if hasattr(pipeline, "warmup"):
        pipeline.warmup(rows)


def close(pipeline: Pipeline) -> None:
    """Free the GPU memory of a pipeline, if it has any."""
    if hasattr(pipeline, "close"):
        pipeline.close()


def enqueue(
    pipeline: Pipeline, signals: Any, out: Reconstruction | None = None, stream: Any = None
) -> tuple[Frames, Event]:
    """Reconstruct frames from and to arrays on a GPU, see `PosteriorOnDevice.enqueue`.

    Raises
    ------
    InputError
        For pipelines without this function.
    """
    if not hasattr(pipeline, "enqueue"):
        raise InputError(f"{pipeline.name} does not accept arrays on a GPU: expected NumPy arrays, or device='cuda'")
    enqueued: tuple[Frames, Event] = pipeline.enqueue(signals, out, stream)
    return enqueued
