"""Writing images as they are made, in any number of formats at once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mpi_fast.atomic import temporary_beside
from mpi_fast.errors import InputError
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
    """What is known of images before the first of them is made; see `Series`.

    ``acquisition`` is how the signals were acquired, None of arrays that do not say it.
    """

    grid: Grid
    acquisition: Acquisition | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    regions: Sequence[Region] = ()


class Writer(Protocol):
    """What takes images in, chunk by chunk."""

    def append(self, result: "Reconstruction", numbers: Numbers, times: Times | None = None) -> None:
        """Take in the next images with the numbers of their frames and, in s, when these began."""
        ...


@contextmanager
def writing(outputs: Sequence[Path], header: Header) -> Iterator[Writer]:
    """Lend a `Writer`; when the block ends, and only if it ends well, every output appears, whole.

    While they are made, images go into an MDF file, in constant memory: the one that is asked for, or one with a hidden
    name beside the first output. Every other format is made from that at the end, when number and range of the images
    are known. Images of arrays, all of which are in memory anyway, are kept there.

    Parameters
    ----------
    outputs : sequence of Path
        Files to write, each in the format that its suffix asks for.
    header : Header
        What is known of all images.

    Raises
    ------
    InputError, MPIFastError
        As `registry.save`, before the block begins as far as it can be known then.
    """
    for output in outputs:
        check(output, acquired=header.acquisition is not None)
    if header.acquisition is None:
        kept = Kept(header)
        yield kept
        _require_images(kept.length, outputs)
        for output in outputs:
            save(output, kept.series())
        return
    asked_for = next((output for output in outputs if format_of(output) is mdf), None)
    with ExitStack() as stack:
        path = asked_for or stack.enter_context(temporary_beside(outputs[0], ".mdf"))
        with ReconstructionWriter(path, header.grid, header.acquisition, provenance=header.provenance) as target:
            stored = Stored(target)
            yield stored
        others = [output for output in outputs if output != asked_for]
        _require_images(stored.length, others)
        if others:
            series = stack.enter_context(Series.open(path))
            series = replace(series, acquisition=header.acquisition, regions=header.regions)
            for output in others:
                save(output, series)


def _require_images(length: int, outputs: Sequence[Path]) -> None:
    """An MDF file may hold no images, where all frames were skipped; nothing else may."""
    if outputs and not length:
        raise InputError(f"{outputs[0]}: there are no images to write: no frame was reconstructed")


class Stored:
    """Images that go into an MDF file."""

    def __init__(self, writer: ReconstructionWriter) -> None:
        self._writer = writer
        self.length = 0

    def append(self, result: "Reconstruction", numbers: Numbers, times: Times | None = None) -> None:
        """See `Writer`."""
        found = image_metadata(result, numbers, times)
        stored = {name: found[plain] for name, plain in NAMES.items() if plain in found}
        self._writer.append(result.image, result.std, stored)
        self.length += len(result)


class Kept:
    """Images that are kept in memory."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._parts: list[dict[str, NDArray[Any]]] = []
        self.length = 0

    def append(self, result: "Reconstruction", numbers: Numbers, times: Times | None = None) -> None:
        """See `Writer`."""
        self._parts.append({"image": result.image, "std": result.std, **image_metadata(result, numbers, times)})
        self.length += len(result)

    def series(self) -> Series:
        """All of them."""
        whole = {name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0]}
        image, std, header = whole.pop("image"), whole.pop("std"), self._header
        return Series(header.grid, image, std, whole, header.provenance, regions=header.regions)


def image_metadata(result: "Reconstruction", numbers: Numbers, times: Times | None) -> dict[str, NDArray[Any]]:
    """What is known of each image, by the names of `Series`."""
    return {"frame": numbers, **({} if times is None else {"time": times}), **reconstruction_metadata(result)}
