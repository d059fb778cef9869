"""MDF 2.1, the common format of programs for magnetic particle imaging."""

from collections.abc import Sequence
from pathlib import Path

from mpi_fast.errors import InputError
from mpi_fast.formats.series import NAMES, Series
from mpi_fast.mdf import ReconstructionWriter


def unknown(path: Path) -> str:
    """The error message for input without acquisition parameters."""
    return f"{path}: MDF states how signals were acquired; arrays do not, and their images are written to .npz, say"


def require(path: Path) -> None:
    """No optional library is needed."""


def files(path: Path) -> Sequence[Path]:
    """One file."""
    return (path,)


def save(path: Path, series: Series) -> None:
    """Write images, uncertainty and the values for each image.

    Raises
    ------
    InputError
        If the acquisition parameters are unknown, because MDF requires them.
    """
    if series.acquisition is None:
        raise InputError(unknown(path))
    with ReconstructionWriter(path, series.grid, series.acquisition, provenance=series.provenance) as writer:
        for part in series.chunks():
            found = {name: series.found[plain][part] for name, plain in NAMES.items() if plain in series.found}
            writer.append(series.image[part], None if series.std is None else series.std[part], found)
