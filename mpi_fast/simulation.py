"""A Lissajous field-free-point scanner: from its physics to a system matrix.

The particles follow the equilibrium (Langevin) model of magnetisation: a particle of moment m in the field H points
along H with mean magnetisation ``m L(beta |H|)``, ``L(a) = coth(a) - 1/a``. The receive coils see the time derivative
of the total magnetisation (Knopp and Buzug, "Magnetic Particle Imaging", 2012, chapters 2 and 4). Relaxation and
anisotropy are left out. Defaults are those of the 2D acquisitions of the OpenMPI data set.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError

MU_0 = 4e-7 * np.pi  # T m / A
BOLTZMANN = 1.380649e-23  # J / K
MAGNETITE_MOLAR_VOLUME = 44.7e-6 / 3  # m^3 per mol of iron in Fe3O4


@dataclass(frozen=True)
class ReceiveChain:
    """Coil, filter and amplifier of each receive channel.

    Attributes
    ----------
    coupling : (C, 2) tuple of tuples
        Coil sensitivity of each channel to magnetisation along x and y, in 1/m. Off-diagonal entries are
        cross-talk; a third row is a z coil, which sees a 2D experiment through its misalignment only.
    resonance : (C,) tuple
        Resonance frequency of each channel in Hz.
    quality : float
        Quality factor of the resonances.
    delay : (C,) tuple
        Delay of each channel in s.
    """

    coupling: tuple[tuple[float, float], ...] = ((50.0, 0.5), (-0.4, 45.0), (1.5, 1.0))
    resonance: tuple[float, ...] = (1.1e6, 0.9e6, 1.4e6)
    quality: float = 2.0
    delay: tuple[float, ...] = (0.4e-6, 0.5e-6, 0.3e-6)

    def transfer(self, frequencies: NDArray[np.float64]) -> NDArray[np.complex128]:
        """Transfer function of a damped resonator with delay, (C, K) complex, for frequencies (K,) in Hz."""
        f0 = np.asarray(self.resonance)[:, None]
        ratio = frequencies / f0
        resonator = 1.0 / (1.0 - ratio**2 + 1j * ratio / self.quality)
        phase = np.exp(-2j * np.pi * frequencies * np.asarray(self.delay)[:, None])
        return np.asarray(resonator * phase, dtype=np.complex128)


@dataclass(frozen=True)
class Scanner:
    """A 2D field-free-point scanner, its tracer and its imaging grid. All lengths in m, fields in T (mu_0 H).

    Attributes
    ----------
    grid : (ny, nx)
        Number of voxels.
    voxel_size : (dy, dx)
        Size of a voxel, which is also the size of the delta sample, in m.
    gradient : (Gx, Gy)
        Selection-field gradient along x and y in T/m.
    drive_amplitude : (Ax, Ay)
        Drive-field amplitude in T.
    base_frequency, dividers
        The drive frequencies are ``base_frequency / dividers``, for x and y, in Hz.
    core_diameter : float
        Diameter of the particles' magnetic core in m.
    saturation_magnetisation : float
        Of the core material, in A/m.
    temperature : float
        In K.
    concentration : float
        Iron concentration of the delta sample in mol/l; images are in multiples of it.
    sample_height : float
        Extent of the delta sample along z in m.
    sub_voxels : int
        Points per axis over which a voxel's signal is averaged.
    receive : ReceiveChain
        What happens between magnetisation and volts.
    """

    grid: tuple[int, int] = (19, 19)
    voxel_size: tuple[float, float] = (2e-3, 2e-3)
    gradient: tuple[float, float] = (-1.0, -1.0)
    drive_amplitude: tuple[float, float] = (12e-3, 12e-3)
    base_frequency: float = 2.5e6
    dividers: tuple[int, int] = (102, 96)
    core_diameter: float = 24e-9
    saturation_magnetisation: float = 474e3
    temperature: float = 293.0
    concentration: float = 0.1
    sample_height: float = 1e-3
    sub_voxels: int = 3
    receive: ReceiveChain = field(default_factory=ReceiveChain)

    def __post_init__(self) -> None:
        positive = {
            "grid": self.grid,
            "voxel_size": self.voxel_size,
            "drive_amplitude": self.drive_amplitude,
            "base_frequency": self.base_frequency,
            "dividers": self.dividers,
            "core_diameter": self.core_diameter,
            "saturation_magnetisation": self.saturation_magnetisation,
            "temperature": self.temperature,
            "concentration": self.concentration,
            "sample_height": self.sample_height,
            "sub_voxels": self.sub_voxels,
        }
        for name, value in positive.items():
            if not np.all(np.asarray(value) > 0):
                raise InputError(f"scanner: {name} is {value}, expected positive numbers")
        if 0.0 in self.gradient:
            raise InputError(f"scanner: gradient is {self.gradient} T/m, expected no zero component")
        if self.dividers[0] == self.dividers[1]:
            raise InputError(f"scanner: dividers are {self.dividers}, expected two different ones")

    @property
    def num_samples(self) -> int:
        """Samples V of one period: the cycle is the least common multiple of the dividers, at the base frequency."""
        return int(np.lcm(*self.dividers))

    @property
    def cycle(self) -> float:
        """Duration of one period in s."""
        return self.num_samples / self.base_frequency

    @property
    def field_of_view(self) -> tuple[float, float]:
        """(height, width) of the grid in m."""
        return self.grid[0] * self.voxel_size[0], self.grid[1] * self.voxel_size[1]

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """The K = V/2 + 1 frequencies of a spectrum in Hz."""
        return np.asarray(np.fft.rfftfreq(self.num_samples, 1.0 / self.base_frequency), dtype=np.float64)

    def drive_field(self) -> NDArray[np.float64]:
        """Drive field over one period, (2, V) in T: components x and y."""
        time = np.arange(self.num_samples) / self.base_frequency
        frequency = self.base_frequency / np.asarray(self.dividers)
        amplitude = np.asarray(self.drive_amplitude)
        return np.asarray(amplitude[:, None] * np.cos(2 * np.pi * frequency[:, None] * time))

    def positions(self, axis: int) -> NDArray[np.float64]:
        """Coordinates of the sub-voxel points along an axis (0: x, 1: y) in m, ascending, centre at zero."""
        count = self.grid[1 - axis] * self.sub_voxels
        step = self.voxel_size[1 - axis] / self.sub_voxels
        return np.asarray((np.arange(count) - (count - 1) / 2) * step, dtype=np.float64)

    def system_matrix(self) -> NDArray[np.complex64]:
        """Signals of a delta sample at each voxel: (C, K, N) complex64 in V, voxels in MDF order (x fastest).

        The spectrum is the plain ``rfft`` of one period, as MDF files have it. Costs V * N * sub_voxels^2 Langevin
        functions: about half a second for the defaults.
        """
        volume = self.voxel_size[0] * self.voxel_size[1] * self.sample_height
        iron_volume_fraction = self.concentration * 1e3 * MAGNETITE_MOLAR_VOLUME
        moment = self.saturation_magnetisation * iron_volume_fraction * volume
        magnetisation = self._magnetisation()  # (2, N, V)
        spectra = np.fft.rfft(magnetisation, axis=-1)
        derivative = 2j * np.pi * self.frequencies
        coupling = np.asarray(self.receive.coupling)
        transfer = -MU_0 * moment * derivative * self.receive.transfer(self.frequencies)
        signals = np.tensordot(coupling, spectra, axes=1) * transfer[:, None, :]
        return np.ascontiguousarray(signals.transpose(0, 2, 1), dtype=np.complex64)

    def _magnetisation(self) -> NDArray[np.float32]:
        """Mean magnetisation of each voxel's particles relative to saturation, (2, N, V)."""
        particle_moment = self.saturation_magnetisation * np.pi / 6 * self.core_diameter**3
        beta = particle_moment / (BOLTZMANN * self.temperature)  # 1/T
        drive = self.drive_field()
        field_x = beta * (self.gradient[0] * self.positions(0)[:, None] + drive[0])  # (nx*s, V)
        field_y = beta * (self.gradient[1] * self.positions(1)[:, None] + drive[1])  # (ny*s, V)
        field_x, field_y = field_x.astype(np.float32), field_y.astype(np.float32)
        (ny, nx), s = self.grid, self.sub_voxels
        result = np.zeros((2, ny, nx, self.num_samples), dtype=np.float32)
        for row, along_y in enumerate(field_y):  # a row at a time keeps the intermediate arrays in cache
            response = langevin_over_argument(field_x**2 + along_y**2)
            result[0, row // s] += (response * field_x).reshape(nx, s, -1).mean(axis=1)
            result[1, row // s] += (response * along_y).reshape(nx, s, -1).mean(axis=1)
        result /= s
        return result.reshape(2, ny * nx, -1)


def langevin_over_argument(square: NDArray[np.float32]) -> NDArray[np.float32]:
    """``L(a) / a`` for ``a = sqrt(square)``, finite at zero (1/3); square must be non-negative.

    Near zero ``coth(a) - 1/a`` cancels, so the Taylor series ``1/3 - a^2/45 + 2 a^4/945`` takes over there.
    """
    small = square < 0.04
    safe = np.where(small, np.float32(1.0), square)
    argument = np.sqrt(safe)
    value = (1.0 / np.tanh(argument) - 1.0 / argument) / argument
    series = 1.0 / 3.0 - square / 45.0 + square**2 * (2.0 / 945.0)
    return np.where(small, series, value).astype(np.float32)
