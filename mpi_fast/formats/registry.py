"""Which format a file's name asks for."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mpi_fast.errors import InputError
from mpi_fast.formats import film, matlab_numpy, mdf, nifti, picture, table, zarr
from mpi_fast.formats.series import Series


class Format(Protocol):
    """A way to write a series; modules of this package are such."""

    def require(self, path: Path) -> None:
        """Check that it can be written, before any image is made.

        Raises
        ------
        MPIFastError
            A library is not installed; the message says what to install.
        """

    def files(self, path: Path) -> Sequence[Path]:
        """The files that `save` writes."""
        ...

    def save(self, path: Path, series: Series) -> None:
        """Write a series; every file appears when whole."""


FORMATS: Mapping[str, Format] = {
    ".mdf": mdf,
    ".nii": nifti,
    ".nii.gz": nifti,
    ".zarr": zarr,
    ".npy": matlab_numpy,
    ".npz": matlab_numpy,
    ".mat": matlab_numpy,
    ".csv": table,
    ".gif": film,
    ".mp4": film,
    ".png": picture,
    ".pdf": picture,
    ".svg": picture,
    ".jpg": picture,
}


def format_of(path: Path) -> Format:
    """The format that a name asks for by its suffix.

    Raises
    ------
    InputError
        There is none; the message lists the suffixes that there are.
    """
    name = path.name.lower()
    for suffix, one in FORMATS.items():
        if name.endswith(suffix) and name != suffix:
            return one
    raise InputError(f"{path}: nothing is written under such a name; expected one that ends in {', '.join(FORMATS)}")


def check(path: Path, *, acquired: bool = True) -> Sequence[Path]:
    """Check before any work that a series can be written under this name, and say which files that will make.

    Whether it is known how the signals were ``acquired`` matters to MDF.

    Raises
    ------
    InputError
        The suffix is unknown, or the format's needs something that is not known.
    MPIFastError
        A library is not installed.
    """
    chosen = format_of(path)
    if chosen is mdf and not acquired:
        raise InputError(mdf.unknown(path))
    chosen.require(path)
    return chosen.files(path)


def save(path: str | Path, series: Series) -> None:
    """Write a series in the format that the name asks for; every file appears when whole.

    Raises
    ------
    InputError, MPIFastError
        As `check`, and where the format cannot hold the series.
    """
    path = Path(path)
    chosen = format_of(path)
    chosen.require(path)
    chosen.save(path, series)
