"""The interface of every method: it turns signals of one scanner into images, as a `Reconstructor` does.

Most methods solve the reduced problem ``y = S V^T x + sigma xi``, which contains everything that the signals say about
x (see `calibration`), in the units of the network. `ReducedMethod` scales each frame to an image of root-mean-square
one (`likelihood.signal_scale`) and back. Images are therefore proportional to the signals, as with a linear method, and
one value of a parameter suits weak and strong frames.
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
BATCH = 64  # frames per network evaluation: enough to use all cores, few enough for the cache


class Result(Protocol):
    """Images of F frames; a `Reconstruction` is one.

    Attributes
    ----------
    image : (F, *grid) float32
        Concentration in the unit of the calibration's delta sample.
    std : (F, *grid) float32, or None
        Standard deviation of each voxel, if the method provides it.
    quantiles : (F, 2) float32, or None
        Quantiles of the errors in units of std, see `uncertainty`; None if errors are assumed to be normal.
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
    """The result of a method: ``image``, and optionally ``std`` and ``quantiles``, see `Result`."""

    image: Array
    std: Array | None = None
    quantiles: Array | None = None


class ReducedMethod(ABC):
    """A method for reduced frames.

    Parameters
    ----------
    calibration : Calibration
        Calibration of the scanner.
    """

    def __init__(self, calibration: Calibration) -> None:
        self.calibration = calibration

    def __call__(self, signals: NDArray[Any] | ReducedFrames) -> Estimate:
        """Reconstruct frames.

        Parameters
        ----------
        signals : array, or ReducedFrames
            Signals as `Calibration.rows` takes them, or already reduced frames.

        Raises
        ------
        InputError, MismatchError
            For signals that do not fit the calibration.
        """
        calibration = self.calibration
        reduced = reduced_frames(calibration, signals)
        scale = signal_scale(reduced.y, calibration.singular_values, reduced.noise)
        unit = np.where(scale > 0, scale, np.float32(1))  # a frame of zeros stays zero
        noise = np.where(scale > 0, reduced.noise / unit, np.float32(1)).astype(np.float32)
        y = (reduced.y / unit[:, None]).astype(np.float32, copy=False)
        likelihood = Likelihood(y, calibration.singular_values, calibration.basis, noise)
        images = self.solve(likelihood) * scale[:, None] if len(y) else y  # without frames there is nothing to solve
        return Estimate(images.reshape(-1, *calibration.grid).astype(np.float32))

    @abstractmethod
    def solve(self, likelihood: Likelihood) -> NDArray[np.floating]:
        """Images (F, N) with a root-mean-square of about one, from signals scaled likewise, of at least one frame."""


def parts(likelihood: Likelihood, size: int = BATCH) -> Iterator[Likelihood]:
    """The frames in batches of at most ``size``."""
    for start in range(0, len(likelihood.y), size):
        part = slice(start, start + size)
        yield Likelihood(likelihood.y[part], likelihood.singular_values, likelihood.basis, likelihood.noise[part])


def reduced_frames(calibration: Calibration, signals: NDArray[Any] | ReducedFrames) -> ReducedFrames:
    """Reduce signals, as `Calibration.rows` takes them, unless they are already reduced.

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
    """Cache a computation for one calibration, because tuning builds a method many times for the same one.

    The last result is kept as long as its calibration exists.
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
    """Raise InputError for parameters that are not positive, finite numbers."""
    for name, value in parameters.items():
        if not (value > 0 and np.isfinite(value)):
            raise InputError(f"{name} {value}: expected a positive number")


def check_count(**parameters: int) -> None:
    """Raise InputError for parameters that are not whole numbers of at least one."""
    for name, value in parameters.items():
        if not isinstance(value, Integral) or value < 1:
            raise InputError(f"{name} {value}: expected a whole number, at least 1")
