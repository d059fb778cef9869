"""Files that options name as inputs of a command, besides its main ones, so that no output replaces them."""

from collections.abc import Sequence
from pathlib import Path

from mpi_fast.errors import ModelError


def files_of(*, model: str | None = None, regions: Sequence[str] | None = None) -> tuple[Path, ...]:
    """The files of a bundle that ``--model`` names, and the files of labels among the texts of ``--region``."""
    from mpi_fast.formats.regions import label_file

    labels = (label_file(text) for text in regions or ())
    return (*(() if model is None else _files_of_model(model)), *(path for path in labels if path is not None))


def _files_of_model(model: str) -> tuple[Path, ...]:
    """All files of a bundle, also those that this command does not read, or the file of a learned method."""
    from mpi_fast.bundle import PACKAGED, Bundle

    try:
        bundle = Bundle.open(model)
    except ModelError:  # the command itself says so, if it needs a bundle
        return () if model == PACKAGED else (Path(model),)
    return tuple(bundle.path / name for name in ("manifest.json", *bundle.manifest["files"]))
