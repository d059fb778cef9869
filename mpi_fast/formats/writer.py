"""Write images while they are made, in any number of formats at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.atomic import temporary_beside
from mpi_fast.formats import mdf
from mpi_fast.formats.regions import Region
from mpi_fast.formats.registry import check, format_of, save
from mpi_fast.formats.series import NAMES, Series, reconstruction_metadata
from mpi_fast.mdf import Acquisition, Grid, ReconstructionWriter

if TYPE_CHECKING:
    from mpi_fast.reconstruction import Reconstruction

Numbers = NDArray[np.int64]
Times = NDArray[np.float64]


@dataclass(frozen=True)
class Header:
    """Values that are known before the first image is made; see `Series`.

    ``acquisition`` has the acquisition parameters; None for arrays, which do not contain them.
    """

    grid: Grid
    acquisition: Acquisition | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    regions: Sequence[Region] = ()


class Writer(Protocol):
    """Receives images, chunk by chunk."""

    def append(self, result: "Reconstruction", numbers: Numbers, times: Times | None = None) -> None:
        """Append images with the numbers and the start times (in s) of their frames."""
        ...


@contextmanager
def writing(outputs: Sequence[Path], header: Header) -> Iterator[Writer]:
    """Context manager for a `Writer`. If the block ends without an error, all outputs appear, complete.

    Images are first written to an MDF file, in constant memory: the requested one, or one with a hidden name beside the
    first output. All other formats are made from it at the end, when number and range of the images are known. If the
    input is an array, which is in memory anyway, the images are kept in memory.

    Parameters
    ----------
    outputs : sequence of Path
        Files to write, each in the format of its suffix.
    header : Header
        Values for all images.

    Raises
    ------
    InputError, MPIFastError
        As `registry.save`; if possible, already before the block begins.
    """
    for output in outputs:
        check(output, acquired=header.acquisition is not None)
    if header.acquisition is None:
        kept = Kept(header)
        yield kept
        for output in outputs:
            save(output, kept.series())
        return
    requested = next((output for output in outputs if format_of(output) is mdf), None)
    with ExitStack() as stack:
        path = requested or stack.enter_context(temporary_beside(outputs[0], ".mdf"))
        with ReconstructionWriter(path, header.grid, header.acquisition, provenance=header.provenance) as target:
            stored = Stored(target)
            yield stored
        others = [output for output in outputs if output != requested]
        if others:
            series = stack.enter_context(Series.open(path))
            series = replace(series, acquisition=header.acquisition, regions=header.regions)
            for output in others:
                save(output, series)


class Stored:
    """Writer to an MDF file."""

    def __init__(self, writer: ReconstructionWriter) -> None:
        self._writer = writer

    def append(self, result: "Reconstruction", numbers: Numbers, times: Times | None = None) -> None:
        """See `Writer`."""
        found = image_metadata(result, numbers, times)
        stored = {name: found[plain] for name, plain in NAMES.items() if plain in found}
        self._writer.append(result.image, result.std, stored)


class Kept:
    """Writer that keeps images in memory."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._parts: list[dict[str, NDArray[Any]]] = []

    def append(self, result: "Reconstruction", numbers: Numbers, times: Times | None = None) -> None:
        """See `Writer`."""
        self._parts.append({"image": result.image, "std": result.std, **image_metadata(result, numbers, times)})

    def series(self) -> Series:
        """The series of all images."""
        header, names = self._header, self._parts[0] if self._parts else {}
        whole = {name: np.concatenate([part[name] for part in self._parts]) for name in names}
        image = whole.pop("image", np.empty((0, *header.grid.shape), np.float32))
        return Series(header.grid, image, whole.pop("std", None), whole, header.provenance, regions=header.regions)


def image_metadata(result: "Reconstruction", numbers: Numbers, times: Times | None) -> dict[str, NDArray[Any]]:
    """Values for each image, by the names of `Series`."""
    return {"frame": numbers, **({} if times is None else {"time": times}), **reconstruction_metadata(result)}
