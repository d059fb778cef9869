"""Films: each frame beside its uncertainty, with its time, a common colour scale, and a scale bar."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mpi_fast.formats.series import Images, Series
from mpi_fast.plots import Film, record
from mpi_fast.plots.film_frames import Pixels
from mpi_fast.plots.recording import require_film

FRAMES = 240  # largest number in a film; longer series show every second frame, every third, and so on


def require(path: Path) -> None:
    """Require Matplotlib, and for MP4 imageio-ffmpeg."""
    require_film(path)


def files(path: Path) -> Sequence[Path]:
    """One file."""
    return (path,)


def save(path: Path, series: Series) -> None:
    """Draw at most `FRAMES` of the images."""
    record(path, _frames(series))


def _frames(series: Series) -> Iterator[Pixels]:
    step = max(1, -(-len(series) // FRAMES))
    shown = range(0, len(series), step)
    if not shown:
        return
    limits = _top(series.image, shown), None if series.std is None else _top(series.std, shown)
    grid = series.grid
    film = Film(grid.field_of_view, grid.shape, limits, axes=grid.axes, unit=series.unit)
    for index in shown:
        one = slice(index, index + 1)
        std = None if series.std is None else series.std[one][0]
        yield film.draw(series.image[one][0], std, series.titles(one, times=True)[0])


def _top(images: Images, shown: range) -> float:
    """Upper end of the colour scale; 1 if all images are empty."""
    largest = max(float(np.nanmax(images[index : index + 1], initial=0.0)) for index in shown)
    return largest if largest > 0 else 1.0
