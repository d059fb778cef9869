"""What goes through a live stream: frames as they arrive, frames made ready, images."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.flags import Flag, names_of
from mpi_fast.reconstruction import Reconstruction

Array = NDArray[np.float32]


class Reconstructs(Protocol):
    """What a live stream calls: a `Reconstructor`, or whatever else makes images of rows."""

    @property
    def calibration(self) -> Calibration:
        """The calibration of the scanner: which rows of a frame are used, and the grid of its images."""
        ...

    def __call__(self, signals: NDArray[Any], flags: NDArray[np.uint8] | None = None, /) -> Reconstruction:
        """Reconstruct frames of rows (F, M), all finite; ``flags`` (F,) say what is known of them already."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """As it arrived: signals of J periods, (J, C, V), (J, C, K) or (J, M), at the monotonic time ``arrived`` in s.

    ``flags`` are those that are known already.
    """

    number: int
    timestamp: float
    signals: NDArray[Any]
    empty: bool
    arrived: float
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """Rows (M,) to reconstruct, the mean of ``averaged`` frames; none, and BAD among the flags, where none can be."""

    number: int
    period: int
    timestamp: float
    arrived: float
    rows: NDArray[np.complex64]
    flags: int
    averaged: int


@dataclass(frozen=True, slots=True)
class LiveImage:
    """One image of a live stream.

    Attributes
    ----------
    number, timestamp
        Of the frame, as they were submitted: of the last one of a mean.
    period : int
        Of the frame, from 0, where every period makes an image; else 0.
    image, std : (*grid) float32
        See `Reconstruction`; NaN where none could be made.
    snr_db, noise_floor : float
    misfit : (3,) float32, or None
    flags : int
        Sum of `flags.Flag`: what is wrong with any frame of the mean.
    averaged : int
        Frames, or periods, that the image is made of.
    latency_ms : float
        From the frame's arrival to its image, by a clock that never jumps.
    error : str, or None
        What `reconstruct` raised for this frame.
    """

    number: int
    period: int
    timestamp: float
    image: Array
    std: Array
    snr_db: float
    noise_floor: float
    misfit: Array | None
    flags: int
    averaged: int
    latency_ms: float
    error: str | None = None

    @property
    def flag_names(self) -> list[str]:
        """What is wrong, in words."""
        return names_of(self.flags)

    @classmethod
    def of(cls, ready: Ready, result: Reconstruction, index: int, latency_ms: float) -> "LiveImage":
        """Image number ``index`` of a result."""
        flags = ready.flags if result.flags is None else ready.flags | int(result.flags[index])
        return cls(
            ready.number,
            ready.period,
            ready.timestamp,
            result.image[index],
            result.std[index],
            float(result.snr_db[index]),
            float(result.noise_floor[index]),
            None if result.misfit is None else result.misfit[index],
            flags,
            ready.averaged,
            latency_ms,
        )

    @classmethod
    def missing(cls, ready: Ready, grid: tuple[int, ...], latency_ms: float, error: str | None = None) -> "LiveImage":
        """NaN for a frame of which no image can be made."""
        nothing = np.full(grid, np.nan, np.float32)
        return cls(
            ready.number,
            ready.period,
            ready.timestamp,
            nothing,
            nothing,
            float("nan"),
            float("nan"),
            None,
            ready.flags | int(Flag.BAD),
            ready.averaged,
            latency_ms,
            error,
        )
