"""Pipelines: implementations of the reconstruction from selected rows to images, with a common interface.

``graph``   the network as an ONNX graph, by ONNX Runtime on the CPU or a GPU, for planes and volumes of every grid
``device``  the network by its own CUDA kernels, one CUDA graph for a whole frame, for planes and volumes of every grid
``tensorrt_frozen``  the network and its scanner as one TensorRT engine
``choose``  the choice of a pipeline, for a machine and the caller's options
``fallback``  the CPU in place of a GPU that fails
``capabilities``  calls that only some pipelines have
``failures``  errors of a GPU and its libraries as one class
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.checked import checked_count
from mpi_fast.errors import InputError
from mpi_fast.limits import LIMITS
from mpi_fast.reconstruction import Reconstruction
from mpi_fast.samplers import SAMPLERS
from mpi_fast.schedule import SDES
from mpi_fast.uncertainty import LEVELS

Array = NDArray[np.float32]


class Frames(NamedTuple):
    """Results for F frames, as in `Reconstruction` but flat: (F, N), (F, N), (F,), (F,), (F, 2) float32."""

    image: Array
    std: Array
    snr_db: Array
    noise_floor: Array
    quantiles: Array

    def on(
        self,
        grid: tuple[int, ...],
        began: float,
        misfit: Array | None = None,
        flags: NDArray[np.uint8] | None = None,
    ) -> Reconstruction:
        """The results as a `Reconstruction`, with images on a grid and the time since ``began``."""
        count = len(self.image)
        image, std = (array.reshape(count, *grid) for array in (self.image, self.std))
        elapsed = 1e3 * (time.perf_counter() - began) / max(count, 1)
        return Reconstruction(image, std, self.snr_db, self.noise_floor, elapsed, misfit, flags, self.quantiles)


class Pipeline(Protocol):
    """Reconstructs frames of one calibration.

    Calls must not overlap. Some pipelines also have `samples`, `graphs`, `enqueue`, `warmup` or `close`.
    """

    @property
    def name(self) -> str:
        """Description of the device and engine, for messages."""
        ...

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """Reconstruct frames from their selected rows (F, M), which must be finite."""
        ...


def in_batches(
    reconstruct: Callable[[NDArray[np.complex64]], Frames],
    rows: NDArray[np.complex64],
    size: int,
    voxels: int,
    pool: Executor | None = None,
) -> Frames:
    """Reconstruct frames in batches.

    Parameters
    ----------
    reconstruct : callable
        Reconstructs one batch; its results may be buffers that the next call on the same thread overwrites.
    rows : (F, M) complex64
        Selected rows.
    size : int
        Frames of a batch.
    voxels : int
        Number of voxels of an image.
    pool : Executor, optional
        Threads that reconstruct batches in parallel; by default batches are reconstructed one after the other.
    """
    frames = len(rows)
    image, std = np.empty((2, frames, voxels), np.float32)
    snr_db, noise_floor = np.empty((2, frames), np.float32)
    out = Frames(image, std, snr_db, noise_floor, np.empty((frames, len(LEVELS)), np.float32))

    def fill(start: int) -> None:
        part = slice(start, start + size)
        for target, source in zip(out, reconstruct(rows[part]), strict=True):
            target[part] = source

    starts = range(0, frames, size)
    for _ in map(fill, starts) if pool is None or len(starts) == 1 else pool.map(fill, starts):
        pass
    return out


@dataclass(frozen=True)
class Sampling:
    """Options of posterior samples, see `reconstructor.Reconstructor.samples`.

    Raises
    ------
    InputError
        For unknown names, and numbers out of range.
    """

    samples: int = 32
    steps: int = 12
    seed: int = 0
    sampler: str = "dpm"
    sde: str = "ve"

    def __post_init__(self) -> None:
        for name, value, known in (("sampler", self.sampler, SAMPLERS), ("sde", self.sde, SDES)):
            if value not in known:
                raise InputError(f"{name} '{value}': expected one of {', '.join(known)}")
        for name, largest in LIMITS.items():
            checked_count(name, getattr(self, name), int(name in ("samples", "steps")), largest)
