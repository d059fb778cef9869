"""The objects in a live stream: arriving frames, prepared frames, images."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.flags import Flag, names_of
from mpi_fast.reconstruction import Reconstruction

Array = NDArray[np.float32]


class Reconstructs(Protocol):
    """Interface that a live stream requires: that of a `Reconstructor`, or of another object that makes images."""

    @property
    def calibration(self) -> Calibration:
        """The calibration of the scanner, which defines the rows in use and the grid of the images."""
        ...

    def __call__(self, signals: NDArray[Any], flags: NDArray[np.uint8] | None = None, /) -> Reconstruction:
        """Reconstruct frames of finite rows (F, M); ``flags`` (F,) are already known."""
        ...


@dataclass(frozen=True, slots=True)
class Frame:
    """An arriving frame: signals of J periods, (J, C, V), (J, C, K) or (J, M), and the monotonic time ``arrived`` in s.

    ``flags`` are already known.
    """

    number: int
    timestamp: float
    signals: NDArray[Any]
    empty: bool
    arrived: float
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    """A prepared frame: rows (M,), the mean of ``averaged`` frames; flagged BAD if they cannot be reconstructed."""

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
        Number and timestamp of the frame as submitted; for a mean, those of its last frame.
    period : int
        Period of the frame, from 0, if every period makes an image; otherwise 0.
    image, std : (*grid) float32
        See `Reconstruction`; NaN if the frame cannot be reconstructed.
    snr_db, noise_floor : float
    misfit : (3,) float32, or None
    flags : int
        Sum of `flags.Flag` over all frames of the mean.
    averaged : int
        Number of frames, or periods, in the mean.
    latency_ms : float
        Time from the frame's arrival to its image, by a clock that never jumps.
    error : str, or None
        Error that `reconstruct` raised for this frame.
    quantiles : (2,) float32, or None
        See `Reconstruction`.
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
    quantiles: Array | None = None

    @property
    def flag_names(self) -> list[str]:
        """Names of the flags."""
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
            quantiles=None if result.quantiles is None else result.quantiles[index],
        )

    @classmethod
    def missing(cls, ready: Ready, grid: tuple[int, ...], latency_ms: float, error: str | None = None) -> "LiveImage":
        """An image of NaN for a frame that cannot be reconstructed."""
        blank = np.full(grid, np.nan, np.float32)
        return cls(
            ready.number,
            ready.period,
            ready.timestamp,
            blank,
            blank,
            float("nan"),
            float("nan"),
            None,
            ready.flags | int(Flag.BAD),
            ready.averaged,
            latency_ms,
            error,
        )
