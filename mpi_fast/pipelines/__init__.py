"""Pipelines: from the selected rows of frames to their images. One interface, several ways to compute the same.

``graph``   the network as an ONNX graph, on the CPU or by ONNX Runtime on a GPU, for planes and volumes of every grid
``device``  the network by CUDA kernels of its own, one CUDA graph for a whole frame, likewise
``tensorrt_frozen``  the network with its scanner inside, as one TensorRT engine
``choose``  which of them, for a machine and what the caller asks for
"""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.limits import LIMITS
from mpi_fast.reconstruction import Reconstruction
from mpi_fast.samplers import SAMPLERS
from mpi_fast.schedule import SDES
from mpi_fast.uncertainty import LEVELS

Array = NDArray[np.float32]


class Frames(NamedTuple):
    """Images of F frames, as `reconstruction.Reconstruction` has them: (F, N), (F, N), (F,), (F,), (F, 2) float32."""

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
        """Images of voxels in their places, and the time since ``began``."""
        count = len(self.image)
        image, std = (array.reshape(count, *grid) for array in (self.image, self.std))
        elapsed = 1e3 * (time.perf_counter() - began) / max(count, 1)
        return Reconstruction(image, std, self.snr_db, self.noise_floor, elapsed, misfit, flags, self.quantiles)


class Pipeline(Protocol):
    """Reconstructs frames of one calibration, not two calls at a time; some have `samples`, `graphs` or `close`."""

    @property
    def name(self) -> str:
        """What computes, for people."""
        ...

    def __call__(self, rows: NDArray[np.complex64]) -> Frames:
        """Selected rows (F, M), finite, to images."""
        ...


def in_batches(
    reconstruct: Callable[[NDArray[np.complex64]], Frames],
    rows: NDArray[np.complex64],
    size: int,
    voxels: int,
    pool: Executor | None = None,
) -> Frames:
    """Frames of ``voxels`` voxels, ``size`` at a time, by a function whose results may be buffers of its thread."""
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
    """How samples of the posterior are drawn; see `reconstructor.Reconstructor.samples` for the meaning of each.

    Raises
    ------
    InputError
        For names that there are not, and numbers out of range.
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
            number, smallest = getattr(self, name), int(name in ("samples", "steps"))
            if not smallest <= number <= largest:
                raise InputError(f"{name} {number}: expected {smallest} to {largest}")
