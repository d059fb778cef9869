"""Pipelines: from the selected rows of frames to their images. One interface, several ways to compute the same.

``steps``   the sampler's loop in NumPy around a network engine: any sampler, guidance and engine
``posterior``  the posterior network as an ONNX graph, for planes and volumes of every grid
``graph``   the default sampler and guidance as one ONNX graph on the CPU
``device``  any sampler and guidance as a CUDA graph on a GPU
``tensorrt_frame``  the default sampler and guidance as one TensorRT engine
``tensorrt_frozen``  the posterior network with its scanner inside, as one TensorRT engine
``choose``  which of them, for a machine, a model and what the caller asks for
"""

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.consensus import STEPS
from mpi_fast.denoiser import GUIDANCE, STRENGTH, Guidance
from mpi_fast.errors import InputError
from mpi_fast.limits import LIMITS
from mpi_fast.samplers import SAMPLERS, get_sampler
from mpi_fast.schedule import SDES
from mpi_fast.uncertainty import LEVELS, NORMAL

Array = NDArray[np.float32]


class Frames(NamedTuple):
    """Images of F frames, as `reconstruction.Reconstruction` has them: (F, N), (F, N), (F,), (F,), (F, 2) float32."""

    image: Array
    std: Array
    snr_db: Array
    noise_floor: Array
    quantiles: Array | None = None


class Pipeline(Protocol):
    """Reconstructs frames of one calibration with one `Sampling`; not two calls at a time."""

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
            if target is not None:
                target[part] = NORMAL if source is None else source

    starts = range(0, frames, size)
    for _ in map(fill, starts) if pool is None or len(starts) == 1 else pool.map(fill, starts):
        pass
    return out


@dataclass(frozen=True)
class Sampling:
    """How the posterior is sampled; see `reconstructor.Reconstructor` for the meaning of each.

    Raises
    ------
    InputError
        For names that there are not, and numbers out of range.
    """

    samples: int = 8
    steps: int = 4
    seed: int = 0
    sampler: str = "dpm"
    sde: str = "ve"
    guidance: Guidance = "proximal"
    strength: float = STRENGTH
    consensus: int = STEPS

    def __post_init__(self) -> None:
        for name, value, known in (
            ("sampler", self.sampler, tuple(SAMPLERS)),
            ("sde", self.sde, tuple(SDES)),
            ("guidance", self.guidance, GUIDANCE),
        ):
            if value not in known:
                raise InputError(f"{name} '{value}': expected one of {', '.join(known)}")
        for name, largest in LIMITS.items():
            number, smallest = getattr(self, name), int(name in ("samples", "steps"))
            if not smallest <= number <= largest:
                raise InputError(f"{name} {number}: expected {smallest} to {largest}")
        if not self.strength > 0:
            raise InputError(f"guidance strength {self.strength}: expected a positive number")

    @property
    def is_default_method(self) -> bool:
        """Whether this is what whole-frame graphs hold: DPM-Solver++(2M), proximal guidance of default strength."""
        return (self.sampler, self.guidance, self.strength) == ("dpm", "proximal", STRENGTH)


def default_steps(sampler: str) -> int:
    """Steps of a sampler unless asked for others; InputError for an unknown one."""
    return get_sampler(sampler).default_steps
