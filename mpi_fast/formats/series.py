"""Series: images one after the other on one grid, wherever they lie, as every format writes them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.errors import InputError
from mpi_fast.formats.regions import Region
from mpi_fast.mdf import Acquisition, Grid, ReconstructionFile
from mpi_fast.uncertainty import LEVELS

if TYPE_CHECKING:
    from mpi_fast.reconstruction import Reconstruction

DELTA_SAMPLE = "of the delta sample"  # the unit of every image, and of its uncertainty
# What is several numbers of each image, and what these are called in tables.
PARTS = {"misfit": ("outside", "receiver", "image"), "quantiles": tuple(f"{100 * level:g}" for level in LEVELS)}
CHUNK_BYTES = 1 << 24
TIME_UNITS = ("s", 1.0), ("ms", 1e3), ("us", 1e6)

# What is kept of each image: its name in MDF files, and everywhere else.
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
    """F images (F, *grid), in memory or in a file: ``images[10:20]`` are ten of them as float32 array."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, and the grid."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> Any: ...


@dataclass(frozen=True, eq=False)
class Series:
    """F images, what is known of each, and of all.

    Attributes
    ----------
    grid : Grid
        The plane or volume of the images.
    image : (F, *grid.shape) float32
        An array, or what reads parts of one.
    std : the same, or None
        The uncertainty of each voxel.
    found : mapping of str to arrays (F, ...)
        What is known of each image, by the names that are the values of `NAMES`.
    acquisition : Acquisition, or None
        How the signals were acquired, as far as that is known.
    provenance : mapping
        What made the images: texts, numbers, lists and mappings of these.
    regions : sequence of Region
        What tables are made of; all voxels unless there are any.
    unit : str
        Of images and uncertainty.

    Raises
    ------
    InputError
        The shapes do not fit each other.
    """

    grid: Grid
    image: Images
    std: Images | None = None
    found: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    acquisition: Acquisition | None = None
    regions: Sequence[Region] = ()
    unit: str = DELTA_SAMPLE

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
        """Images that a `Reconstructor` made, with what is ``known`` of them beside, such as ``frame`` and ``time``."""
        return cls(grid, result.image, result.std, {**known, **reconstruction_metadata(result)}, provenance or {})

    @classmethod
    @contextmanager
    def open(cls, path: str | Path) -> Iterator[Series]:
        """Lend the images of an MDF file, which is read as they are asked for and closed when the block ends.

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
        """Parts that are small enough to be held in memory."""
        step = max(1, CHUNK_BYTES // (4 * math.prod(self.grid.shape)))
        for start in range(0, len(self), step):
            yield slice(start, min(start + step, len(self)))

    @property
    def numbers(self) -> NDArray[np.int64]:
        """Number of each image's frame, (F,) int64; where nobody knows, they are counted."""
        return np.asarray(self.found.get("frame", np.arange(len(self))), np.int64)

    def columns(self) -> dict[str, NDArray[Any]]:
        """What is known of each image, (F,) each: where that is several numbers, by names of their own."""
        columns: dict[str, NDArray[Any]] = {}
        for name, values in self.found.items():
            if name in PARTS:
                parts = zip(PARTS[name], np.asarray(values).T, strict=True)
                columns |= {f"{name}_{part}": numbers for part, numbers in parts}
            else:
                columns[name] = values
        return columns

    def titles(self, part: slice, *, times: bool = False) -> list[str]:
        """What the images are called: "frame 3", or "frames 0-9" of those that are means; with the time if known."""
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
        """When each image began, (F,) float64 in s; None where nobody knows."""
        times = self.found.get("time")
        return None if times is None else np.asarray(times, np.float64)

    @property
    def interval(self) -> float | None:
        """Mean time from one image to the next in s; None of fewer than two, and where nobody knows."""
        times = self.times
        if times is None or len(times) < 2 or not times[-1] > times[0]:
            return None
        return float((times[-1] - times[0]) / (len(times) - 1))


def reconstruction_metadata(result: Reconstruction) -> dict[str, NDArray[Any]]:
    """What a `Reconstructor` found of each image, by the names in `NAMES`."""
    found = {name: getattr(result, name) for name in ("snr_db", "noise_floor", "misfit", "quantiles", "flags")}
    return {name: values for name, values in found.items() if values is not None}
