"""How data were acquired: drive fields, receiver and counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mpi_fast.mdf.types import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Acquisition:
    """How the data were acquired; fields are in T and T/m (MDF's T/mu0).

    Attributes
    ----------
    base_frequency : float
        Clock in Hz; drive channel d oscillates at `base_frequency / divider[d]`.
    divider : int64 array (D, F)
    strength, phase : float64 arrays (J, D, F)
        Drive-field amplitudes in T and phases in rad; J may be 1 where all periods share them.
    gradient : float64 array (3, 3), or None
        Selection-field gradient of the first period and patch in T/m.
    bandwidth : float
        Half the sampling rate, in Hz.
    num_samples, num_channels : int
        V samples per period and C receive channels.
    periods_per_frame, num_averages : int
        J periods in each frame; drive-field periods averaged into each of them.
    cycle : float
        Duration of the trajectory in s; unless positive, it is computed from the dividers.
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

    def __post_init__(self) -> None:
        if not self.cycle > 0:
            computed = math.lcm(*self.divider.reshape(-1).tolist()) / self.base_frequency
            object.__setattr__(self, "cycle", computed)

    @property
    def num_frequencies(self) -> int:
        """K = V // 2 + 1, before any frequency selection."""
        return self.num_samples // 2 + 1

    @property
    def frequencies(self) -> FloatArray:
        """Frequencies in Hz, float64 array (K,)."""
        return np.asarray(np.fft.rfftfreq(self.num_samples, 0.5 / self.bandwidth), np.float64)

    @property
    def drive_frequencies(self) -> tuple[float, ...]:
        """Frequencies in Hz of the tones that have any strength, of all drive channels."""
        driven = np.abs(self.strength).max(axis=0) > 0 if self.strength.size else np.ones(self.divider.shape, bool)
        return tuple(self.base_frequency / divider for divider in self.divider[driven].tolist())
