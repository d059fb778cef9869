"""Write reconstructions: images on a grid, with uncertainty maps and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError
from mpi_fast.hdf5_output import OutputFile
from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.grid import Grid
from mpi_fast.mdf.reconstruction_file import PER_FRAME
from mpi_fast.mdf.write import GrowingDataset, Metadata, put, put_common, put_grid, require_shape


class ReconstructionWriter:
    """Write images while they are made; the file appears when the block ends without an error.

    Parameters
    ----------
    path : str or Path
    grid : Grid
        The plane or volume of the images.
    acquisition : Acquisition
        Acquisition parameters of the measurement, which are copied with its start time and description.
    provenance : mapping, optional
        Origin of the images; stored as JSON text in the custom field /reconstruction/_provenance.
    metadata : Metadata, optional
        Study, experiment, tracer and scanner; by default taken from the description of the acquisition.

    Raises
    ------
    InputError
        If the file cannot be created there, or the provenance is not JSON.
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        acquisition: Acquisition,
        *,
        provenance: Mapping[str, Any] | None = None,
        metadata: Metadata | None = None,
    ) -> None:
        self._path, self._grid, self._acquisition = path, grid, acquisition
        self._metadata = metadata
        try:
            self._provenance = json.dumps(dict(provenance or {}), sort_keys=True)
        except TypeError as error:
            raise InputError(f"provenance: texts, numbers and lists were expected: {error}") from error

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._h5 = stack.enter_context(OutputFile(stack.enter_context(atomic_path(self._path))))
            self._images = GrowingDataset(self._h5, "/reconstruction/data")
            self._std = GrowingDataset(self._h5, "/reconstruction/_std")
            self._found = {name: GrowingDataset(self._h5, f"/reconstruction/{name}") for name in PER_FRAME}
            # An empty stream makes a valid file without images.
            self._images.append(np.empty((0, self._grid.voxels.size, 1), np.float32))
            self._stack = stack.pop_all()
        return self

    def append(
        self,
        images: NDArray[Any],
        std: NDArray[Any] | None = None,
        found: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        """Add images, optionally with standard deviations and values for each; either for all images or for none.

        Parameters
        ----------
        images, std : real arrays (n, *grid.shape)
        found : mapping of str to arrays (n, ...), optional
            Values for each image, under the names of `PER_FRAME`.

        Raises
        ------
        InputError
            If the shape is not that of the grid, or if values exist only for some images.
        """
        found = found or {}
        for name, kept in found.items():
            if name not in PER_FRAME or len(kept) != len(images):
                raise InputError(f"{name}: one of {', '.join(PER_FRAME)} for each of {len(images)} images was expected")
        for name, dataset in self._found.items():
            if self._images.length and (name in found) != bool(dataset.length):
                raise InputError(f"{name}: expected with every image or with none")
        if self._images.length and (std is not None) != bool(self._std.length):
            raise InputError("std: expected with every image or with none")
        for name, values, target in (("images", images, self._images), ("std", std, self._std)):
            if values is not None:
                require_shape(name, values, (len(images), *self._grid.shape))
                target.append(np.asarray(values, np.float32).reshape(len(images), self._grid.voxels.size, 1))
        for name, kept in found.items():
            self._found[name].append(np.asarray(kept))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._stack.__exit__(kind, error, trace)
            return
        with self._stack:
            grid = self._grid
            put_common(self._h5, self._acquisition, self._metadata, max(1, self._images.length))
            put_grid(self._h5, "/reconstruction", grid.size, grid.extent, grid.center)
            put(self._h5, "/reconstruction/_provenance", self._provenance)


def write_reconstruction(
    path: str | Path,
    images: NDArray[Any],
    grid: Grid,
    acquisition: Acquisition,
    *,
    std: NDArray[Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
    metadata: Metadata | None = None,
) -> None:
    """Write images (Q, *grid.shape), and `std` of the same shape, at once; see `ReconstructionWriter`."""
    with ReconstructionWriter(path, grid, acquisition, provenance=provenance, metadata=metadata) as writer:
        writer.append(images, std)
