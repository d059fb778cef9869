"""An MDF file of any kind."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from mpi_fast.mdf.datasets import Datasets, shown


class MDFFile:
    """An open MDF file.

    Parameters
    ----------
    path : str or Path

    Attributes
    ----------
    path : Path
    datasets : Datasets
        Contents of the file, by name.

    Raises
    ------
    FileFormatError
        If the file is missing, a folder, truncated, not HDF5, or not MDF version 2.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.datasets = Datasets(self.path)
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        if self.datasets.find("/version") is None:
            self.datasets.fail("/version", "is missing: this HDF5 file is not MDF")
        version = self.datasets.text("/version")
        if not version.startswith("2."):
            self.datasets.fail("/version", f"is {shown(version)}; MDF version 2 was expected")

    @property
    def notes(self) -> tuple[str, ...]:
        """Unusual facts about the file, and decisions of the reader, as texts for users."""
        return tuple(self.datasets.notes)

    def close(self) -> None:
        """Close the file; it may be closed twice."""
        self.datasets.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
