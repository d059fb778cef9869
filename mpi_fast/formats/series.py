"""Series: consecutive images on one grid, in memory or in a file, as input of every format."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.description import UNIT
from mpi_fast.errors import InputError
from mpi_fast.formats.regions import Region
from mpi_fast.mdf import Acquisition, Grid, ReconstructionFile
from mpi_fast.uncertainty import LEVELS

if TYPE_CHECKING:
    from mpi_fast.reconstruction import Reconstruction

# Values with several numbers per image, and the names of these numbers in tables.
PARTS = {"misfit": ("outside", "receiver", "image"), "quantiles": tuple(f"{100 * level:g}" for level in LEVELS)}
CHUNK_BYTES = 1 << 24
SAME_STEP = 0.01  # largest difference of the steps between images, as a share, for one time between images
TIME_UNITS = ("s", 1.0), ("ms", 1e3), ("us", 1e6)

# Values kept for each image: name in MDF files, and name everywhere else.
NAMES = {
    "_frame": "frame",
    "_time": "time",
    "_snrDecibel": "snr_db",
    "_noiseFloor": "noise_floor",
    "_misfit": "misfit",
    "_quantiles": "quantiles",
    "_flags": "flags",
}


class Images(Protocol):
    """F images (F, *grid), in memory or in a file: ``images[10:20]`` are ten of them as a float32 array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, and the grid."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Series:
    """F images, values for each image, and values for all.

    Attributes
    ----------
    grid : Grid
        The plane or volume of the images.
    image : (F, *grid.shape) float32
        An array, or an object that reads parts of one.
    std : the same, or None
        The uncertainty of each voxel.
    found : mapping of str to arrays (F, ...)
        Values for each image; the keys are the values of `NAMES`.
    acquisition : Acquisition, or None
        Acquisition parameters of the signals, if known.
    provenance : mapping
        Origin of the images: texts, numbers, lists and mappings of these.
    regions : sequence of Region
        Regions for tables; if empty, tables use all voxels.
    unit : str
        Unit of images and uncertainty.

    Raises
    ------
    InputError
        If the shapes do not fit each other.
    """

    grid: Grid
    image: Images
    std: Images | None = None
    found: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    acquisition: Acquisition | None = None
    regions: Sequence[Region] = ()
    unit: str = UNIT

    def __post_init__(self) -> None:
        for name, images in (("image", self.image), ("std", self.std)):
            if images is not None and tuple(images.shape) != (len(self.image), *self.grid.shape):
                raise InputError(f"{name}: shape {(len(self.image), *self.grid.shape)} expected, not {images.shape}")
        for name, values in self.found.items():
            if len(values) != len(self):
                raise InputError(f"{name}: {len(self)} values expected, one for each image, not {len(values)}")

    @classmethod
    def of(
        cls, result: Reconstruction, grid: Grid, *, provenance: Mapping[str, Any] | None = None, **known: NDArray[Any]
    ) -> Series:
        """Images of a `Reconstructor`, with other ``known`` values for each, such as ``frame`` and ``time``."""
        return cls(grid, result.image, result.std, {**known, **reconstruction_metadata(result)}, provenance or {})

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator[Series]:
        """Context manager for the images of an MDF file, which are read on access; the file is closed at the end.

        Raises
        ------
        FileFormatError
            See `ReconstructionFile`.
        """
        with ReconstructionFile(path) as file:
            found = {NAMES[name]: file.found(name) for name in file.names}
            yield cls(file.grid, file.image, file.std, found, file.provenance)

    def __len__(self) -> int:
        return len(self.image)

    def chunks(self) -> Iterator[slice]:
        """Parts that are small enough for the memory."""
        step = max(1, CHUNK_BYTES // (4 * math.prod(self.grid.shape)))
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Frame number of each image, (F,) int64; if unknown, images are counted from 0."""
        return np.asarray(self.found.get("frame", np.arange(len(self))), np.int64)

    def columns(self) -> dict[str, NDArray[Any]]:
        """Values for each image, (F,) each; values with several numbers are split into columns."""
        columns: dict[str, NDArray[Any]] = {}
        for name, values in self.found.items():
            if name in PARTS:
                parts = zip(PARTS[name], np.asarray(values).T, strict=True)
                columns |= {f"{name}_{part}": numbers for part, numbers in parts}
            else:
                columns[name] = values
        return columns

    def titles(self, part: slice, *, times: bool = False) -> list[str]:
        """Titles of the images: "frame 3", or "frames 0-9" for means, optionally with the time."""
        averaged = int(self.provenance.get("averaged", 1))
        names = (f"{one}" if averaged == 1 else f"{one}-{one + averaged - 1}" for one in self.numbers[part].tolist())
        titles = [f"frame {name}" if averaged == 1 else f"frames {name}" for name in names]
        began = self.times
        if not times or began is None:
            return titles
        unit, factor = next((one for one in TIME_UNITS if began[-1] * one[1] >= 1), TIME_UNITS[-1])
        return [f"{title}   {factor * time:.1f} {unit}" for title, time in zip(titles, began[part], strict=True)]

    @property
    def times(self) -> NDArray[np.float64] | None:
        """Start time of each image, (F,) float64 in s; None if unknown."""
        times = self.found.get("time")
        return None if times is None else np.asarray(times, np.float64)

    @property
    def interval(self) -> float | None:
        """Time between images in s; None if unknown, if it is not always the same, or for fewer than two images."""
        times = self.times
        if times is None or len(times) < 2:
            return None
        mean = float((times[-1] - times[0]) / (len(times) - 1))
        # Where frames are missing, no step tells when each of the images was.
        even = mean > 0 and bool((np.abs(np.diff(times) - mean) <= SAME_STEP * mean).all())
        return mean if even else None


def reconstruction_metadata(result: Reconstruction) -> dict[str, NDArray[Any]]:
    """Values of a `Reconstruction` for each image, by the names in `NAMES`."""
    found = {name: getattr(result, name) for name in ("snr_db", "noise_floor", "misfit", "quantiles", "flags")}
    return {name: values for name, values in found.items() if values is not None}
