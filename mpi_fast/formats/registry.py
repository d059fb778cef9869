"""Formats and their suffixes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from mpi_fast.errors import InputError, NoImagesError
from mpi_fast.formats import film, matlab_numpy, mdf, nifti, picture, table, zarr
from mpi_fast.formats.series import Series


class Format(Protocol):
    """Interface of a format; modules of this package implement it."""

    def require(self, path: Path) -> None:
        """Check that the format can be written, before any image is made.

        Raises
        ------
        MPIFastError
            If a library is missing; the message says what to install.
        """

    def files(self, path: Path) -> Sequence[Path]:
        """The files that `save` writes."""
        ...

    def save(self, path: Path, series: Series) -> None:
        """Write a series; every file appears when it is complete."""


READ = mdf, matlab_numpy  # formats that mpi-fast also reads
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
    """The format of a file name, by its suffix.

    Raises
    ------
    InputError
        If the suffix is unknown; the message lists all suffixes.
    """
    name = path.name.lower()
    for suffix, one in FORMATS.items():
        if name.endswith(suffix) and name != suffix:
            return one
    raise InputError(f"{path}: nothing is written under such a name; expected one that ends in {', '.join(FORMATS)}")


def only_written(path: Path) -> bool:
    """Whether files of this name are written by mpi-fast, but never read."""
    name = path.name.lower()
    return any(name.endswith(suffix) and one not in READ for suffix, one in FORMATS.items())


def check(path: Path, *, acquired: bool = True) -> Sequence[Path]:
    """Check before any work that a series can be written under this name, and return the files to be written.

    ``acquired`` says whether the acquisition parameters are known, which MDF requires.

    Raises
    ------
    InputError
        If the suffix is unknown, or the format needs unknown values.
    MPIFastError
        If a library is not installed.
    """
    chosen = format_of(path)
    if chosen is mdf and not acquired:
        raise InputError(mdf.unknown(path))
    chosen.require(path)
    return chosen.files(path)


def save(path: str | Path, series: Series) -> None:
    """Write a series in the format of the file name; every file appears when it is complete.

    Raises
    ------
    InputError, MPIFastError
        As `check`, and if the format cannot hold the series. Only MDF holds one without images, such as that of a
        recording of which all frames were skipped.
    """
    path = Path(path)
    chosen = format_of(path)
    chosen.require(path)
    if not len(series) and chosen is not mdf:
        raise NoImagesError(f"{path}: there are no images to write: no frame was reconstructed")
    chosen.save(path, series)
