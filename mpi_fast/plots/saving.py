"""Save figures: formats, and a check for Matplotlib."""

from pathlib import Path
from typing import TYPE_CHECKING

from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError
from mpi_fast.optional import optional

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".pdf", ".svg", ".jpg")
DPI = 150


def require(path: Path | None = None, formats: tuple[str, ...] = FORMATS) -> None:
    """Check that figures can be made, and written under this name, before anything is computed for them.

    Raises
    ------
    MPIFastError
        If Matplotlib is not installed.
    InputError
        If the suffix is not one of ``formats``.
    """
    if path is not None and path.suffix.lower() not in formats:
        raise InputError(f"{path}: a figure's name must end in one of {', '.join(formats)}")
    with optional("figures need matplotlib: pip install 'mpi-fast[plots]'"):
        import matplotlib.figure  # noqa: F401


def save(figure: "Figure", path: Path, dpi: int = DPI, colours: int | None = None) -> None:
    """Write a figure in the format of the name's suffix; the file appears when it is complete.

    A PNG of many small images with at most ``colours`` colours has a third of the size.
    """
    require(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
        if colours and path.suffix.lower() == ".png":
            from PIL import Image

            with Image.open(temporary) as image:
                image.convert("RGB").quantize(colours).save(temporary, optimize=True)
