"""Acquisition parameters: everything that a file states about drive fields, receiver and study."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.mdf.array_types import ComplexArray, FloatArray, IntArray, TextArray

NEGLIGIBLE_DRIVE = 1e-3  # relative to the strongest drive field; idle amplifiers have such amplitudes


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Acquisition parameters of data; fields are in T and T/m (MDF's T/mu0).

    Parameters that a file does not state are None, unless described otherwise.

    Attributes
    ----------
    base_frequency : float
        Clock in Hz; drive channel d oscillates at `base_frequency / divider[d]`.
    divider : int64 array (D, F)
        Dividers of the clock; 0 if a channel has no drive field.
    strength, phase : float64 arrays (J, D, F)
        Drive-field amplitudes in T and phases in rad; J may be 1 if all periods share them. Phases that are not stated
        are NaN.
    gradient : float64 array (3, 3), or None
        Selection-field gradient of the first period and patch in T/m.
    bandwidth : float
        Half the sampling rate, in Hz.
    num_samples, num_channels : int
        V samples per period and C receive channels.
    periods_per_frame, num_averages : int
        J periods in each frame, and the number of drive-field periods averaged into each of them.
    cycle : float
        Duration of the trajectory in s; unless positive, it is computed from the dividers.
    gradients : float64 array (J, Y, 3, 3), or None
        Selection-field gradients of every period and patch in T/m, as many as are stated; by default `gradient`.
    offset_field : float64 array (J, Y, 3), or None
        Offset field of every period and patch in T, as many as are stated.
    waveform : str array (D, F), or None
        "sine", "triangle", "custom"...
    unit : str, or None
        Unit of the received signals, such as "V".
    induction_factor : float64 array (C,), or None
    transfer_function : complex128 array (C, K), or None
        Transfer function of the receive chain at `frequencies`; NaN at frequencies that are not in the file.
    start_time : str, or None
        Start time in ISO 8601.
    description : mapping of str to str, int, float, or a list of these
        Contents of the groups /study, /experiment, /tracer and /scanner, by the name of the dataset, such as
        "/study/name".
    """

    base_frequency: float
    divider: IntArray
    strength: FloatArray
    phase: FloatArray
    gradient: FloatArray | None
    bandwidth: float
    num_samples: int
    num_channels: int
    periods_per_frame: int = 1
    cycle: float = 0.0
    num_averages: int = 1
    gradients: FloatArray | None = None
    offset_field: FloatArray | None = None
    waveform: TextArray | None = None
    unit: str | None = None
    induction_factor: FloatArray | None = None
    transfer_function: ComplexArray | None = None
    start_time: str | None = None
    description: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.cycle > 0:
            object.__setattr__(self, "cycle", self.common_period)
        if self.gradients is None and self.gradient is not None:
            object.__setattr__(self, "gradients", self.gradient.reshape(1, 1, 3, 3))

    @property
    def common_period(self) -> float:
        """The shortest common cycle of all driven tones in s, or the sampled time without a drive field."""
        used = self.divider[self.driven].tolist()
        return math.lcm(*used) / self.base_frequency if used else self.num_samples / (2 * self.bandwidth)

    @property
    def num_frequencies(self) -> int:
        """K = V // 2 + 1, before any frequency selection."""
        return self.num_samples // 2 + 1

    @property
    def frequencies(self) -> FloatArray:
        """Frequencies in Hz, float64 array (K,)."""
        return np.asarray(np.fft.rfftfreq(self.num_samples, 0.5 / self.bandwidth), np.float64)

    @property
    def driven(self) -> NDArray[np.bool_]:
        """Which tones have a divider and a strength that is not negligible, bool array (D, F)."""
        if not self.strength.size:
            return self.divider > 0
        strength = np.nan_to_num(np.abs(self.strength)).max(axis=0)
        return np.asarray((self.divider > 0) & (strength > NEGLIGIBLE_DRIVE * strength.max()))

    @property
    def drive_frequencies(self) -> tuple[float, ...]:
        """Frequencies in Hz of the driven tones of all drive channels."""
        return tuple(self.base_frequency / divider for divider in self.divider[self.driven].tolist())
