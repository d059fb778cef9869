"""The parameters of a method that come closest to the truth on frames for which it is known.

No opponent is to lose for want of care, so the search ends only where every neighbour is worse: on a coarse grid first,
which grows where the best lies at its end, then from the best to whichever neighbour is better, then at half the step.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.calibration import Calibration
from mpi_fast.errors import InputError
from mpi_fast.methods.base import Method
from mpi_fast.metrics import psnr

TOLERANCE = 0.005  # dB: a neighbour that is better by less is no reason to move
HALVINGS = 1  # of the grid's step, in the logarithm
MOST_STEPS = 40  # from the grid's best to the optimum: a method that never gets worse has none


@dataclass(frozen=True)
class Axis:
    """A positive number to tune, on a geometric grid.

    Attributes
    ----------
    start : tuple of float
        Values of the coarse grid, in geometric progression; at least two.
    low, high : float
        Limits that have a reason outside of tuning: a number of sweeps is at least one.
    whole : bool
        Round to whole numbers.
    """

    start: tuple[float, ...]
    low: float = 0.0
    high: float = np.inf
    whole: bool = False

    def value(self, place: float) -> float:
        """Value at a place on the grid, counted in steps from its first value."""
        ratio = (self.start[-1] / self.start[0]) ** (1 / (len(self.start) - 1))
        value = self.start[0] * ratio**place
        return float(round(value)) if self.whole else float(f"{value:.4g}")

    def allows(self, place: float) -> bool:
        """Whether the value there is within the limits."""
        return self.low <= self.value(place) <= self.high


Space = Mapping[str, Axis | tuple[Any, ...]]
"""What to tune: numbers on an axis, and choices from a tuple."""
Place = tuple[float, ...]


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes
    ----------
    parameters : dict
        The best.
    score : float
        Their mean PSNR in dB over the frames tuned on.
    curves : dict of name to list of (value, score)
        What was tried along each axis through the best, sorted by value.
    interior : dict of name to bool
        Whether the next values on both sides were tried and are no better, or are beyond the axis' limits.
    """

    parameters: dict[str, Any]
    score: float
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    interior: dict[str, bool] = field(default_factory=dict)


def tune(
    build: Callable[..., Method],
    space: Space,
    calibration: Calibration,
    signals: NDArray[Any],
    truth: NDArray[np.floating],
    report: Callable[[], None] = lambda: None,
) -> Tuned:
    """Find the parameters of largest mean PSNR.

    Parameters
    ----------
    build : callable
        ``build(calibration, **parameters)`` makes the method.
    space : mapping
        Name of each parameter to an `Axis` or a tuple of choices; empty: nothing to tune.
    calibration : Calibration
    signals, truth : (F, ...), (F, ny, nx)
        Frames and their true images. Not those that the method will be judged by.
    report : callable
        Called after each trial.

    Raises
    ------
    InputError
        If there are no frames.
    """
    if not len(truth):
        raise InputError("tuning: no frames, expected some whose true image is known")
    axes = {name: axis for name, axis in space.items() if isinstance(axis, Axis)}
    choices = {name: choice for name, choice in space.items() if not isinstance(choice, Axis)}
    found = []
    for chosen in itertools.product(*choices.values()):
        fixed = dict(zip(choices, chosen, strict=True))

        def score(parameters: dict[str, Any], fixed: dict[str, Any] = fixed) -> float:
            mean = psnr(build(calibration, **parameters, **fixed)(signals).image, truth).mean()
            report()
            return float(mean) if np.isfinite(mean) else -np.inf

        best = _climb(axes, score)
        found.append(Tuned({**fixed, **best.parameters}, best.score, best.curves, best.interior))
    return max(found, key=lambda one: one.score)


def _climb(axes: Mapping[str, Axis], score: Callable[[dict[str, Any]], float]) -> Tuned:
    """The best place on the axes' grids: coarse grid, neighbours of the best, neighbours at half the step."""
    scores: dict[Place, float] = {}
    values: dict[tuple[Any, ...], float] = {}

    def at(place: Place) -> float:
        if place not in scores:
            if not all(axis.allows(step) for axis, step in zip(axes.values(), place, strict=True)):
                return -np.inf
            parameters = _parameters(axes, place)
            key = tuple(parameters.values())
            if key not in values:  # whole numbers: several places may mean the same
                values[key] = score(parameters)
            scores[place] = values[key]
        return scores[place]

    best = max(itertools.product(*(map(float, range(len(axis.start))) for axis in axes.values())), key=at)
    for halving in range(HALVINGS + 1):
        for _ in range(MOST_STEPS):
            better = max(_neighbours(best, 0.5**halving), key=at, default=best)
            if at(better) <= at(best) + TOLERANCE:
                break
            best = better
    curves, interior = {}, {}
    for index, (name, axis) in enumerate(axes.items()):
        along = {
            axis.value(place[index]): value
            for place, value in scores.items()
            if place[:index] + place[index + 1 :] == best[:index] + best[index + 1 :]
        }
        curves[name] = sorted(along.items())
        sides = [_moved(best, index, sign * 0.5**HALVINGS) for sign in (-1, 1)]
        interior[name] = all(
            not axis.allows(side[index]) or scores.get(side, np.inf) <= scores[best] + TOLERANCE for side in sides
        )
    return Tuned(_parameters(axes, best), scores[best], curves, interior)


def _parameters(axes: Mapping[str, Axis], place: Place) -> dict[str, Any]:
    values = {name: axis.value(step) for (name, axis), step in zip(axes.items(), place, strict=True)}
    return {name: int(value) if axes[name].whole else value for name, value in values.items()}


def _neighbours(place: Place, step: float) -> list[Place]:
    """Places one step away along one axis."""
    return [_moved(place, index, sign * step) for index in range(len(place)) for sign in (-1, 1)]


def _moved(place: Place, index: int, step: float) -> Place:
    return (*place[:index], place[index] + step, *place[index + 1 :])
