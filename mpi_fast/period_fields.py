"""Whether the periods of a measurement share one field: drive, gradient and offset.

Periods with different fields show different places, or the same place differently. One calibration cannot fit them all,
and their mean is no image, whatever the calibration states.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.mdf import Acquisition

FIELD_TOLERANCE = 0.01  # relative; drive amplitudes are controlled to a few per mille
PHASE_TOLERANCE = 0.01  # rad, up to which phases are equal


@dataclass(frozen=True)
class _Field:
    """A field in every period, (J, ...) in T, T/m or rad; differences up to ``tolerance`` are none."""

    called: str
    unit: str
    scale: float
    values: NDArray[np.float64]
    tolerance: float

    def apart(self, one: int, other: int) -> bool:
        """Whether two periods differ; NaN means unknown, and differs from nothing."""
        difference = self.values[other] - self.values[one]
        if self.unit == "rad":
            difference = np.angle(np.exp(1j * difference))
        return bool((np.abs(difference) > self.tolerance).any())

    def shown(self, period: int) -> str:
        numbers = " x ".join(f"{self.scale * value + 0.0:.6g}" for value in self.values[period].reshape(-1))
        return f"{numbers} {self.unit} in period {period}"


def groups(acquisition: Acquisition) -> NDArray[np.int64]:
    """Number of the first period with the same fields, for each of the J periods, (J,) int64."""
    fields, firsts = _fields(acquisition), [0]
    found = np.zeros(acquisition.periods_per_frame, np.int64)
    for period in range(1, len(found) if fields else 0):
        alike = (one for one in firsts if not any(field.apart(one, period) for field in fields))
        found[period] = next(alike, period)
        if found[period] == period:
            firsts.append(period)
    return found


def difference(acquisition: Acquisition, one: int, other: int) -> str:
    """The first field in which two periods differ, with both values; "" if there is none."""
    for field in _fields(acquisition):
        if field.apart(one, other):
            return f"{field.called} {field.shown(one)}, but {field.shown(other)}"
    return ""


def _fields(a: Acquisition) -> list[_Field]:
    """The fields that are stated for every period."""
    driven = a.driven
    strength = np.abs(a.strength)[:, driven]
    strongest, steepest = _largest(strength), _largest(a.gradients)
    half_turns = np.where(a.strength < 0, np.pi, 0.0)  # a negative strength is half a turn of phase
    phase = (a.phase + half_turns)[:, driven]
    stated: list[tuple[str, str, float, NDArray[Any] | None, float]] = [
        ("offset field", "mT", 1e3, a.offset_field, FIELD_TOLERANCE * strongest),
        ("gradient", "T/m", 1.0, a.gradients, FIELD_TOLERANCE * steepest),
        ("drive-field strength", "mT", 1e3, strength, FIELD_TOLERANCE * strongest),
        ("drive-field phase", "rad", 1.0, phase, PHASE_TOLERANCE),
    ]
    several = a.periods_per_frame
    return [
        _Field(called, unit, scale, values, tolerance)
        for called, unit, scale, values, tolerance in stated
        if values is not None and len(values) == several > 1
    ]


def _largest(values: NDArray[np.float64] | None) -> float:
    return 0.0 if values is None else float(np.nan_to_num(np.abs(values)).max(initial=0.0))
