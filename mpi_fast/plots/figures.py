"""Figures of frames: reconstructions with their uncertainty, also beside the truth and a baseline."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mpi_fast.description import UNIT
from mpi_fast.plots.panels import CONCENTRATION, ERROR, RESOLUTION, UNCERTAINTY, Row, panels, top
from mpi_fast.plots.views import Way

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float32]
WIDTH = {2: 2.0, 3: 2.5}  # of a tile in inches, by number of dimensions


def reconstruction_figure(
    images: Array,
    std: Array | None,
    field_of_view: tuple[float, ...],
    *,
    titles: Sequence[str] = (),
    axes: str | None = None,
    unit: str = UNIT,
) -> "Figure":
    """Show frames, and their standard deviation below, with common colour scales and axes in mm.

    Volumes are shown by the maxima along each axis and the slices through the middle.

    Parameters
    ----------
    images, std : (F, ny, nx) or (F, nz, ny, nx)
        One column for each frame; use at most about ten.
    field_of_view : (height, width) or (depth, height, width)
        In m.
    titles : sequence of str
        One for each frame.
    axes : str, optional
        Names of the images' axes; default ``yx``, and ``zyx`` for volumes.
    unit : str
        Unit of the images, for the colour bar.
    """
    rows = [Row("concentration", images, CONCENTRATION, 0.0, top(images), f"concentration\n({unit})")]
    if std is not None:
        rows.append(Row("standard deviation", std, UNCERTAINTY, 0.0, top(std), f"std\n({unit})"))
    if images.ndim == 4:  # both views of a quantity, one below the other, with one colour bar
        rows = [
            replace(viewed_row(row, way), label=row.label if way == "centre" else "", bar_rows=2)
            for row in rows
            for way in WAYS
        ]
    return panels(rows, field_of_view, titles, axes, width=WIDTH[images.ndim - 1])


def resolution_figure(
    maps: NDArray[np.float64], field_of_view: tuple[float, ...], *, titles: Sequence[str] = (), axes: str | None = None
) -> "Figure":
    """Show the resolution of a calibration: the share of each voxel's own value that returns in it, from 0 to 1.

    Volumes are shown by the slices through the middle.

    Parameters
    ----------
    maps : (S, ny, nx) or (S, nz, ny, nx)
        One column for each map, with one colour scale.
    field_of_view, titles, axes
        As for `reconstruction_figure`.
    """
    percent = 100 * maps
    row = Row("resolution", percent, RESOLUTION, 0.0, top(percent), "own value that comes back / %")
    if maps.ndim == 4:
        row = viewed_row(row, "centre")
    size = tuple(map(abs, field_of_view))
    return panels([row], size, titles, axes, width=WIDTH[maps.ndim - 1])


@dataclass(frozen=True)
class Column:
    """The images of one frame in the comparison, (ny, nx) or (nz, ny, nx)."""

    title: str
    truth: Array
    baseline: Array
    image: Array
    std: Array


def comparison_figure(columns: Sequence[Column], field_of_view: tuple[float, ...], *, title: str = "") -> "Figure":
    """Truth, ART, the reconstruction, its error and its uncertainty, one row each; a column for each frame.

    The first three rows share one colour scale, from zero to the largest true concentration; the others have one each.
    For volumes, all five are shown as the largest values along each axis, and then as the slices through the middle.
    """
    stack = {name: np.stack([getattr(c, name) for c in columns]) for name in ("truth", "baseline", "image", "std")}
    error, largest, spread = stack["image"] - stack["truth"], top(stack["truth"]), top(stack["std"])
    rows = [
        Row("truth", stack["truth"], CONCENTRATION, 0.0, largest),
        Row("ART", stack["baseline"], CONCENTRATION, 0.0, largest),
        Row("mpi-fast", stack["image"], CONCENTRATION, 0.0, largest, "concentration", bar_rows=3, extend="max"),
        Row("error", error, ERROR, -0.5 * largest, 0.5 * largest, "mpi-fast - truth", extend="both"),
        Row("uncertainty", stack["std"], UNCERTAINTY, 0.0, spread, "std", extend="max"),
    ]
    volumes = error.ndim == 4
    if volumes:
        rows = [viewed_row(row, way) for way in WAYS for row in rows]
    return panels(
        rows, field_of_view, [column.title for column in columns], heading=title, width=2.0 if volumes else 1.3
    )


WAYS: tuple[Way, ...] = ("projection", "centre")


def viewed_row(row: Row, way: Way) -> Row:
    """The row of volumes in one view, which is added to its name."""
    largest = "largest magnitudes" if row.low < 0 else "maximum projections"
    return replace(row, name=f"{row.name}\n{largest if way == 'projection' else 'central slices'}", way=way)
