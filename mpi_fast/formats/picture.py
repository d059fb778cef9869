"""Pictures: the first frames of a series, each with its uncertainty below."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mpi_fast import plots
from mpi_fast.formats.series import Series

SHOWN = 8  # frames


def require(path: Path) -> None:
    """Require Matplotlib; see `plots.require`."""
    plots.require(path)


def files(path: Path) -> Sequence[Path]:
    """One file."""
    return (path,)


def save(path: Path, series: Series) -> None:
    """Draw the first `SHOWN` images."""
    first = slice(0, SHOWN)
    std = None if series.std is None else np.asarray(series.std[first])
    figure = plots.reconstruction_figure(
        np.asarray(series.image[first]),
        std,
        series.grid.field_of_view,
        titles=series.titles(first),
        axes=series.grid.axes,
        unit=series.unit,
    )
    plots.save(figure, path)
