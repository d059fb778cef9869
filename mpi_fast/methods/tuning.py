"""Tuning: find the parameters of a method that give the best images on frames with known truth.

To be fair to every method, the search ends only where every neighbour is worse. It starts on a coarse grid, moves from
the best point to the best neighbour, also beyond the end of the grid, and then repeats this with half the step.
Choices, such as one of two algorithms, that are far behind by then are left out of this last part.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.methods.base import Method
from mpi_fast.metrics import psnr

FINEST = 0.5  # finest step, relative to that of the coarse grid, in the logarithm
TOLERANCE = 0.005  # dB; a neighbour that is better by less is ignored
FAR_BEHIND = 1.0  # dB; on the validation frames of scanner A no choice so far behind wins by half steps
MOST_STEPS = 40  # limit of steps from the best grid point, because some methods have no optimum


@dataclass(frozen=True)
class Axis:
    """A positive number to tune, on a geometric grid.

    Attributes
    ----------
    start : tuple of float
        Values of the coarse grid, in geometric progression; at least two.
    low, high : float
        Limits for reasons other than tuning, such as at least one sweep.
    whole : bool
        Round to whole numbers.
    """

    start: tuple[float, ...]
    low: float = 0.0
    high: float = np.inf
    whole: bool = False

    def value(self, place: float) -> float:
        """Value at a place on the grid, in steps from its first value."""
        ratio = (self.start[-1] / self.start[0]) ** (1 / (len(self.start) - 1))
        value = self.start[0] * ratio**place
        return float(round(value)) if self.whole else float(f"{value:.4g}")

    def allows(self, place: float) -> bool:
        """Whether the value at a place is within the limits."""
        return self.low <= self.value(place) <= self.high


Space = Mapping[str, Axis | tuple[Any, ...]]
"""What to tune: numbers on an axis, and choices from a tuple."""
Place = tuple[float, ...]


@dataclass(frozen=True)
class Tuned:
    """The result of tuning.

    Attributes
    ----------
    parameters : dict
        Best parameters.
    score : float
        Mean PSNR in dB of these parameters over the tuning frames.
    curves : dict of name to list of (value, score)
        Values tried along each axis through the best point, sorted.
    interior : dict of name to bool
        Whether the neighbours on both sides were tried and are no better, or are beyond the limits of the axis.
    """

    parameters: dict[str, Any]
    score: float
    curves: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    interior: dict[str, bool] = field(default_factory=dict)


def tune(
    build: Callable[..., Method],
    space: Space,
    signals: NDArray[Any],
    truth: NDArray[np.floating],
    report: Callable[[], None] = lambda: None,
) -> Tuned:
    """Find the parameters of largest mean PSNR.

    Parameters
    ----------
    build : callable
        ``build(**parameters)`` makes the method.
    space : mapping
        Name of each parameter to an `Axis` or a tuple of choices; empty: nothing to tune.
    signals, truth : (F, ...), (F, ny, nx)
        Frames and their true images, other than those of the evaluation.
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

    def score(parameters: dict[str, Any]) -> float:
        mean = psnr(build(**parameters)(signals).image, truth).mean()
        report()
        return float(mean) if np.isfinite(mean) else -np.inf

    fixed = (dict(zip(choices, chosen, strict=True)) for chosen in itertools.product(*choices.values()))
    searches = [_Search(axes, one, score) for one in fixed]
    for search in searches:
        search.climb(1.0)
    leading = max(search.best_score for search in searches)
    for search in searches:
        if search.best_score >= leading - FAR_BEHIND:
            search.climb(FINEST)
    return max(searches, key=lambda search: search.best_score).found()


class _Search:
    """A search from the best place of the coarse grid to the best place nearby; no place is tried twice."""

    def __init__(
        self, axes: Mapping[str, Axis], fixed: Mapping[str, Any], score: Callable[[dict[str, Any]], float]
    ) -> None:
        self._axes, self._fixed, self._score = axes, fixed, score
        self._scores: dict[Place, float] = {}
        self._values: dict[tuple[Any, ...], float] = {}
        grid = itertools.product(*(map(float, range(len(axis.start))) for axis in axes.values()))
        self._best = max(grid, key=self._at)

    @property
    def best_score(self) -> float:
        return self._at(self._best)

    def climb(self, step: float) -> None:
        """Move to the best neighbour as long as it is better; the first better one might lead to a lower optimum."""
        for _ in range(MOST_STEPS):
            place = max(self._neighbours(step), key=self._at, default=self._best)
            if self._at(place) <= self.best_score + TOLERANCE:
                return
            self._best = place

    def found(self) -> Tuned:
        """The best place, and the values on both sides of it along each axis."""
        curves, interior = {}, {}
        for index, (name, axis) in enumerate(self._axes.items()):
            along = {
                axis.value(place[index]): score
                for place, score in self._scores.items()
                if place[:index] + place[index + 1 :] == self._best[:index] + self._best[index + 1 :]
            }
            curves[name] = sorted(along.items())
            sides = [_moved(self._best, index, sign * FINEST) for sign in (-1, 1)]
            interior[name] = all(
                not axis.allows(side[index]) or self._scores.get(side, np.inf) <= self.best_score + TOLERANCE
                for side in sides
            )
        return Tuned(self._parameters(self._best), self.best_score, curves, interior)

    def _at(self, place: Place) -> float:
        if place not in self._scores:
            if not all(axis.allows(step) for axis, step in zip(self._axes.values(), place, strict=True)):
                return -np.inf
            parameters = self._parameters(place)
            key = tuple(parameters.values())
            if key not in self._values:  # several places may round to the same whole number
                self._values[key] = self._score(parameters)
            self._scores[place] = self._values[key]
        return self._scores[place]

    def _parameters(self, place: Place) -> dict[str, Any]:
        values = {name: axis.value(step) for (name, axis), step in zip(self._axes.items(), place, strict=True)}
        numbers = {name: int(value) if self._axes[name].whole else value for name, value in values.items()}
        return {**self._fixed, **numbers}

    def _neighbours(self, step: float) -> list[Place]:
        """Places one step away along one axis."""
        return [_moved(self._best, index, sign * step) for index in range(len(self._best)) for sign in (-1, 1)]


def _moved(place: Place, index: int, step: float) -> Place:
    return (*place[:index], place[index] + step, *place[index + 1 :])
