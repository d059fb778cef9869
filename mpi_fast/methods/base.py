"""What every method is: signals of one scanner in, images out, as a `Reconstructor` is called.

Most methods solve the reduced problem ``y = S V^T x + sigma xi``, which says about x all that the signals say (see
`calibration`), in the units of the network: `ReducedMethod` scales each frame to an image of root-mean-square
one (`likelihood.signal_scale`) and back, so that every method scales with its signals, as a linear one does, and one
value of a parameter suits faint and strong frames.
"""

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from numbers import Integral
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError, MismatchError
from mpi_fast.likelihood import Likelihood, signal_scale
from mpi_fast.reduction import ReducedFrames

Array = NDArray[np.float32]
Computed = TypeVar("Computed")
BATCH = 64  # frames that a network evaluates at once: enough to fill a CPU, few enough to stay in its cache


class Result(Protocol):
    """Images of F frames; a `Reconstruction` is one.

    Attributes
    ----------
    image : (F, *grid) float32
        In the unit of the calibration's delta sample.
    std : (F, *grid) float32, or None
        Standard deviation of each voxel, if the method knows one.
    quantiles : (F, 2) float32, or None
        How errors are spread next to std, see `uncertainty`; None where they are taken for normal.
    """

    @property
    def image(self) -> Array: ...  # noqa: D102

    @property
    def std(self) -> Array | None: ...  # noqa: D102

    @property
    def quantiles(self) -> Array | None: ...  # noqa: D102


class Method(Protocol):
    """Reconstructs frames of the calibration that it was built for."""

    def __call__(self, signals: NDArray[Any]) -> Result:
        """Reconstruct signals, as `Calibration.rows` takes them."""
        ...


@dataclass(frozen=True)
class Estimate:
    """The result of a method: ``image``, and perhaps how uncertain it is, ``std`` and ``quantiles``, as of `Result`."""

    image: Array
    std: Array | None = None
    quantiles: Array | None = None


class ReducedMethod(ABC):
    """A method for reduced frames.

    Parameters
    ----------
    calibration : Calibration
        Of the scanner.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration

    def __call__(self, signals: NDArray[Any] | ReducedFrames) -> Estimate:
        """Reconstruct frames.

        Parameters
        ----------
        signals : array, or ReducedFrames
            As `Calibration.rows` takes them, or already reduced.

        Raises
        ------
        InputError, MismatchError
            For signals that do not fit the calibration.
        """
        calibration = self.calibration
        reduced = reduced_frames(calibration, signals)
        scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
        unit = np.where(scale > 0, scale, np.float32(1))  # a frame of zeros stays one
        noise = np.where(scale > 0, reduced.noise / unit, np.float32(1)).astype(np.float32)
        y = (reduced.y / unit[:, None]).astype(np.float32, copy=False)
        likelihood = Likelihood(y, calibration.singular_values, calibration.basis, noise)
        images = self.solve(likelihood) * scale[:, None] if len(y) else y  # no frames, no images
        return Estimate(images.reshape(-1, *calibration.grid).astype(np.float32))

    @abstractmethod
    def solve(self, likelihood: Likelihood) -> NDArray[np.floating]:
        """Images (F, N) of root-mean-square about one, from signals in this unit, of at least one frame."""


def parts(likelihood: Likelihood, size: int = BATCH) -> Iterator[Likelihood]:
    """The frames in batches of at most ``size``."""
    for start in range(0, len(likelihood.y), size):
        part = slice(start, start + size)
        yield Likelihood(likelihood.y[part], likelihood.singular_values, likelihood.basis, likelihood.noise[part])


def reduced_frames(calibration: Calibration, signals: NDArray[Any] | ReducedFrames) -> ReducedFrames:
    """Reduce signals, as `Calibration.rows` takes them, unless they are reduced.

    Raises
    ------
    InputError, MismatchError
        As `Calibration.rows`, and for reduced frames of another rank.
    """
    if not isinstance(signals, ReducedFrames):
        return calibration.reduce(calibration.rows(signals))
    if signals.y.ndim != 2 or signals.y.shape[1] != calibration.rank:
        raise MismatchError(f"reduced frames {signals.y.shape}: the calibration has rank {calibration.rank}")
    return signals


def once_per_calibration(compute: Callable[[Calibration], Computed]) -> Callable[[Calibration], Computed]:
    """Compute something for a calibration once: tuning builds a method over and over for the same one.

    What was computed last is kept, as long as its calibration lives.
    """
    kept: list[tuple[weakref.ref[Calibration], Computed]] = []

    def forget(gone: weakref.ref[Calibration]) -> None:
        if kept and kept[0][0] is gone:
            kept.clear()

    @wraps(compute)
    def computed(calibration: Calibration) -> Computed:
        if not kept or kept[0][0]() is not calibration:
            kept[:] = [(weakref.ref(calibration, forget), compute(calibration))]
        return kept[0][1]

    return computed


def check_positive(**parameters: float) -> None:
    """Refuse parameters that are not positive, finite numbers: InputError."""
    for name, value in parameters.items():
        if not (value > 0 and np.isfinite(value)):
            raise InputError(f"{name} {value}: expected a positive number")


def check_count(**parameters: int) -> None:
    """Refuse parameters that are not whole numbers of at least one: InputError."""
    for name, value in parameters.items():
        if not isinstance(value, Integral) or value < 1:
            raise InputError(f"{name} {value}: expected a whole number, at least 1")
