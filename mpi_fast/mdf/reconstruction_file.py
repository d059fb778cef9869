"""Read reconstructions part by part: images on a grid, and values for each image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.facts import read_acquisition
from mpi_fast.mdf.file import MDFFile
from mpi_fast.mdf.geometry import read_grid, read_size
from mpi_fast.mdf.grid import Grid
from mpi_fast.mdf.hdf5 import Stored

_GROUP = "/reconstruction"

# Values that mpi-fast stores for each image: datasets of /reconstruction whose first axis is Q.
PER_FRAME = {
    "_frame": "number of the frame, or of the first that was averaged, from 0 over the selected periods",
    "_time": "when it began, in s after the first frame did; background frames between are not counted",
    "_snrDecibel": "signal-to-noise ratio found",
    "_noiseFloor": "what noise alone would leave in a linear estimate, in the image's unit",
    "_misfit": "three numbers, see mpi_fast.misfit: outside the calibration's range, receive chain, image",
    "_quantiles": "what half and 95 % of the image's errors do not exceed, in units of _std",
    "_flags": "sum of mpi_fast.flags.Flag: 1 bad, 2 clipped, 4 empty, 8 foreign, 16 dead",
}


class StoredImages:
    """Images in an open file, (Q, *grid) float32, read on access: ``images[10:20]``."""

    def __init__(self, stored: Stored, grid: Grid) -> None:
        self._stored, self._grid = stored, grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, and the grid."""
        return (self._stored.shape[0], *self._grid.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, part: slice) -> NDArray[np.float32]:
        # All of them are read at once only if the file is large enough for the number that it states.
        values = self._stored.read(() if part == slice(None) else (part, slice(None), slice(None)))
        return np.asarray(values[:, self._grid.voxels, 0], np.float32).reshape(-1, *self._grid.shape)


class ReconstructionFile(MDFFile):
    """An open reconstruction, written by any program.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    grid : Grid
        The plane or volume of the images.
    image : StoredImages
        The Q images.
    std : StoredImages, or None
        Uncertainty of the images, an addition of mpi-fast.

    Raises
    ------
    FileFormatError
        If the file is damaged or not a reconstruction, or if its images are not Q x P x 1 for P voxels.
    """

    def _check(self) -> None:
        super()._check()
        read_size(self.datasets, _GROUP)
        self.grid = read_grid(self.datasets, _GROUP, None)
        self.image = self.images("data")
        self.std = self.images("_std") if self.datasets.has(f"{_GROUP}/_std") else None
        if self.std is not None and len(self.std) != len(self.image):
            self.datasets.fail(f"{_GROUP}/_std", f"has {len(self.std)} images, but data has {len(self.image)}")

    def images(self, name: str) -> StoredImages:
        """Images (Q, *grid) of a dataset in /reconstruction; FileFormatError if it is missing or not of that shape."""
        dataset, count = f"{_GROUP}/{name}", math.prod(read_size(self.datasets, _GROUP))
        stored = self._stored(name)
        if len(stored.shape) != 3 or stored.shape[1:] != (count, 1) or stored.dtype.kind not in "biuf":
            self.datasets.fail(
                dataset,
                f"has shape {stored.shape} and type {stored.dtype}; real numbers, Q x {count} x 1, were expected",
            )
        if stored.hole is not None:
            self.datasets.fail(dataset, f"{stored.hole[1]}, from image {stored.hole[0][0]} on")
        return StoredImages(stored, self.grid)

    def found(self, name: str) -> NDArray[Any]:
        """Values for each image under one of the names of `PER_FRAME`: (Q,) or (Q, 3)."""
        return np.asarray(self._stored(name).read())

    @property
    def names(self) -> tuple[str, ...]:
        """Names of `PER_FRAME` that exist in the file."""
        return tuple(name for name in PER_FRAME if self.datasets.has(f"{_GROUP}/{name}"))

    @property
    def provenance(self) -> dict[str, Any]:
        """How the images were made, if the file states it."""
        if not self.datasets.has(f"{_GROUP}/_provenance"):
            return {}
        try:
            provenance_json = json.loads(self.datasets.text(f"{_GROUP}/_provenance"))
        except ValueError as error:
            self.datasets.fail(f"{_GROUP}/_provenance", f"is not JSON: {error}")
        return provenance_json if isinstance(provenance_json, dict) else {"provenance": provenance_json}

    @property
    def acquisition(self) -> Acquisition:
        """Acquisition parameters of the signals; raises FileFormatError if the file does not state them."""
        receiver = "/acquisition/receiver"
        periods = self.datasets.count("/acquisition/numPeriodsPerFrame", "/acquisition/numPeriods", default=1)
        channels = self.datasets.count(f"{receiver}/numChannels")
        samples = self.datasets.count(f"{receiver}/numSamplingPoints")
        return read_acquisition(self.datasets, periods, channels, samples, np.arange(samples // 2 + 1))

    def _stored(self, name: str) -> Stored:
        stored = self.datasets.find(f"{_GROUP}/{name}")
        if stored is None:
            self.datasets.fail(f"{_GROUP}/{name}", "is missing: the file holds no images of that name")
        return stored


def read_reconstruction(path: str | Path, name: str = "data") -> NDArray[Any]:
    """Read the images of a reconstruction, or values for each image.

    Parameters
    ----------
    path : str or Path
    name : str
        Dataset in /reconstruction: "data", "_std" for the uncertainty that mpi-fast adds, or one of `PER_FRAME`.

    Returns
    -------
    float32 array (Q, rows, columns) of planes or (Q, nz, ny, nx) of volumes, or for `PER_FRAME` an array (Q,) or (Q, 3)

    Raises
    ------
    FileFormatError
        If there is no such dataset, and as `ReconstructionFile`.

    Examples
    --------
    >>> images = read_reconstruction("measurement.reco.mdf")  # doctest: +SKIP
    >>> flags = read_reconstruction("measurement.reco.mdf", "_flags")  # doctest: +SKIP
    """
    with ReconstructionFile(path) as file:
        return file.found(name) if name in PER_FRAME else file.images(name)[:]
