"""A Lissajous field-free-point scanner: from its physics to a system matrix, of planes and volumes.

The particles follow the equilibrium (Langevin) model of magnetisation: a particle of moment m in the field H points
along H with mean magnetisation ``m L(beta |H|)``, ``L(a) = coth(a) - 1/a``. The receive coils see the time derivative
of the total magnetisation (Knopp and Buzug, "Magnetic Particle Imaging", 2012, chapters 2 and 4). Relaxation and
anisotropy are left out. Defaults are those of the 2D acquisitions of the OpenMPI data set.

Spectra are computed without samples over time, see `lissajous`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.lissajous import magnetisation_spectra

MU_0 = 4e-7 * np.pi  # T m / A
BOLTZMANN = 1.380649e-23  # J / K
MAGNETITE_MOLAR_VOLUME = 44.7e-6 / 3  # m^3 per mol of iron in Fe3O4


@dataclass(frozen=True)
class ReceiveChain:
    """Coil, filter and amplifier of each receive channel.

    Attributes
    ----------
    coupling : (C, 2) or (C, 3) tuple of tuples
        Coil sensitivity of each channel to magnetisation along x, y and, in volumes, z, in 1/m. Off-diagonal entries
        are cross-talk; the third row of a 2D experiment is a z coil, which receives signals only by misalignment.
    resonance : (C,) tuple
        Resonance frequency of each channel in Hz.
    quality : float
        Quality factor of the resonances.
    delay : (C,) tuple
        Delay of each channel in s.
    """

    coupling: tuple[tuple[float, ...], ...] = ((50.0, 0.5), (-0.4, 45.0), (1.5, 1.0))
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
    """A field-free-point scanner, its tracer and its imaging grid. All lengths in m, fields in T (mu_0 H).

    Attributes
    ----------
    grid : (ny, nx) or (nz, ny, nx)
        Number of voxels.
    voxel_size : (dy, dx) or (dz, dy, dx)
        Size of a voxel, which is also the size of the delta sample, in m.
    gradient : (Gx, Gy) or (Gx, Gy, Gz)
        Selection-field gradient in T/m.
    drive_amplitude : (Ax, Ay) or (Ax, Ay, Az)
        Drive-field amplitude in T.
    base_frequency, dividers
        The drive frequencies are ``base_frequency / dividers``, for x, y and, in volumes, z, in Hz.
    core_diameter : float
        Diameter of the particles' magnetic core in m.
    saturation_magnetisation : float
        Saturation magnetisation of the core material in A/m.
    temperature : float
        Temperature in K.
    concentration : float
        Iron concentration of the delta sample in mol/l; images are in multiples of it.
    sample_height : float
        Extent of the delta sample along z in m, if the grid is a plane.
    sub_voxels : int
        Points per axis over which a voxel's signal is averaged.
    receive : ReceiveChain
        Receive chain from magnetisation to volts.
    """

    grid: tuple[int, ...] = (19, 19)
    voxel_size: tuple[float, ...] = (2e-3, 2e-3)
    gradient: tuple[float, ...] = (-1.0, -1.0)
    drive_amplitude: tuple[float, ...] = (12e-3, 12e-3)
    base_frequency: float = 2.5e6
    dividers: tuple[int, ...] = (102, 96)
    core_diameter: float = 24e-9
    saturation_magnetisation: float = 474e3
    temperature: float = 293.0
    concentration: float = 0.1
    sample_height: float = 1e-3
    sub_voxels: int = 3
    receive: ReceiveChain = field(default_factory=ReceiveChain)

    def __post_init__(self) -> None:
        if self.dimensions not in (2, 3):
            raise InputError(f"scanner: grid is {self.grid}, expected (ny, nx) or (nz, ny, nx)")
        for name in ("voxel_size", "gradient", "drive_amplitude", "dividers"):
            value = getattr(self, name)
            if len(value) != self.dimensions:
                raise InputError(f"scanner: {name} is {value}, expected {self.dimensions} numbers for grid {self.grid}")
        shape, channels = np.shape(self.receive.coupling), len(self.receive.resonance)
        if shape != (channels, self.dimensions):
            raise InputError(f"scanner: coupling has shape {shape}, expected {(channels, self.dimensions)}")
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
            if not np.all(np.asarray(value) > 0) or not np.all(np.isfinite(np.asarray(value, float))):
                raise InputError(f"scanner: {name} is {value}, expected positive numbers")
        if 0.0 in self.gradient or not np.all(np.isfinite(self.gradient)):
            raise InputError(f"scanner: gradient is {self.gradient} T/m, expected no zero component")
        if len(set(self.dividers)) < self.dimensions:
            raise InputError(f"scanner: dividers are {self.dividers}, expected different ones")

    @classmethod
    def volume(cls, **changes: Any) -> "Scanner":
        """A scanner of volumes, by default as in the 3D acquisitions of the OpenMPI data set, 21.5 ms a period."""
        defaults: dict[str, Any] = {
            "grid": (19, 19, 19),
            "voxel_size": (1e-3, 2e-3, 2e-3),
            "gradient": (-1.0, -1.0, 2.0),
            "drive_amplitude": (12e-3, 12e-3, 12e-3),
            "dividers": (102, 96, 99),
            "receive": ReceiveChain(((50.0, 0.5, -0.8), (-0.4, 45.0, 0.6), (1.5, 1.0, 40.0))),
        }
        return cls(**{**defaults, **changes})

    @property
    def dimensions(self) -> int:
        """2 for planes, 3 for volumes."""
        return len(self.grid)

    @property
    def num_samples(self) -> int:
        """Samples V of one period: the cycle is the least common multiple of the dividers, at the base frequency."""
        return int(np.lcm.reduce(self.dividers))

    @property
    def cycle(self) -> float:
        """Duration of one period in s."""
        return self.num_samples / self.base_frequency

    @property
    def field_of_view(self) -> tuple[float, ...]:
        """Extent of the grid in m: (height, width) or (depth, height, width)."""
        return tuple(count * size for count, size in zip(self.grid, self.voxel_size, strict=True))

    @property
    def aspect(self) -> tuple[float, ...]:
        """Sides of a voxel relative to its width: (height,) or (depth, height)."""
        return tuple(size / self.voxel_size[-1] for size in self.voxel_size[:-1])

    @property
    def plane(self) -> tuple[tuple[int, int], tuple[float, float]]:
        """Grid (ny, nx) and field of view (height, width) for functions of planes; raises InputError for a volume."""
        if self.dimensions != 2:
            raise InputError(f"scanner: grid is {self.grid}, expected a plane (ny, nx)")
        (ny, nx), (height, width) = self.grid, self.field_of_view
        return (ny, nx), (height, width)

    @property
    def sample_volume(self) -> float:
        """Volume of the delta sample in m^3."""
        return float(np.prod(self.voxel_size)) * (self.sample_height if self.dimensions == 2 else 1.0)

    @cached_property
    def frequencies(self) -> NDArray[np.float64]:
        """The frequencies of a spectrum in Hz, (K,) float64, K = V/2 + 1."""
        return np.asarray(np.fft.rfftfreq(self.num_samples, 1.0 / self.base_frequency), dtype=np.float64)

    def positions(self, axis: int) -> NDArray[np.float64]:
        """Coordinates of the sub-voxel points along an axis (0: x, 1: y, 2: z) in m, ascending, centre at zero."""
        count = self.grid[-1 - axis] * self.sub_voxels
        step = self.voxel_size[-1 - axis] / self.sub_voxels
        return np.asarray((np.arange(count) - (count - 1) / 2) * step, dtype=np.float64)

    def system_matrix(self, frequency_index: NDArray[np.integer] | None = None) -> NDArray[np.complex64]:
        """Signals of a delta sample at each voxel: (C, K', N) complex64 in V, voxels in MDF order (x fastest).

        Parameters
        ----------
        frequency_index : (K',) int, optional
            Wanted frequencies, 0 to K - 1; by default all K. The cost of a matrix is proportional to their number.

        Raises
        ------
        InputError
            If a frequency does not exist.

        Notes
        -----
        The spectrum is the plain ``rfft`` of one period, as MDF files have it.
        """
        wanted = np.arange(len(self.frequencies)) if frequency_index is None else np.asarray(frequency_index)
        shape = len(self.receive.resonance), len(wanted), int(np.prod(self.grid))
        result = np.empty(shape, dtype=np.complex64)
        for part, signals in self.blocks(wanted):
            result[:, part] = signals
        return result

    def blocks(self, frequency_index: NDArray[np.integer]) -> Iterator[tuple[slice, NDArray[np.complex64]]]:
        """Yield the system matrix in parts: a slice of the wanted frequencies, and their signals (C, k, N) in V.

        Raises
        ------
        InputError
            For a frequency_index beyond the scanner's K frequencies.
        """
        wanted = np.asarray(frequency_index)
        if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self.frequencies):
            raise InputError(f"frequency_index: expected numbers from 0 to {len(self.frequencies) - 1}")
        moment = self.saturation_magnetisation * self.concentration * 1e3 * MAGNETITE_MOLAR_VOLUME * self.sample_volume
        derivative = 2j * np.pi * self.frequencies[wanted]
        transfer = -MU_0 * moment * derivative * self.receive.transfer(self.frequencies[wanted])
        coupling = np.asarray(self.receive.coupling, dtype=np.float32)
        for part, spectra in magnetisation_spectra(self._fields(), self.sub_voxels, wanted):
            signals = np.tensordot(coupling, spectra, axes=1) * transfer[:, part, None].astype(np.complex64)
            yield part, np.asarray(signals, dtype=np.complex64)

    def _fields(self) -> list[NDArray[np.float64]]:
        """Energy of a particle in the field component along x, y and z, relative to the thermal energy.

        For each sub-voxel of an axis, over one period of that axis' drive field: (n * sub_voxels, dividers[axis]).
        """
        particle_moment = self.saturation_magnetisation * np.pi / 6 * self.core_diameter**3
        beta = particle_moment / (BOLTZMANN * self.temperature)  # 1/T
        fields = []
        for axis, divider in enumerate(self.dividers):
            drive = self.drive_amplitude[axis] * np.cos(2 * np.pi * np.arange(divider) / divider)
            fields.append(beta * (self.gradient[axis] * self.positions(axis)[:, None] + drive))
        return fields
