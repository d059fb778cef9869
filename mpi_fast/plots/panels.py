"""Rows and columns of tiles, with axes in mm, scale bars, and colour bars that the tiles of a row share.

All positions are computed here, because Matplotlib's automatic layout and shared axes take ten seconds for fifty
panels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.plots.views import Panel, Tile, Way, offset

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

CONCENTRATION, ERROR, UNCERTAINTY, RESOLUTION = "inferno", "RdBu_r", "viridis", "cividis"
LETTERS = 115.0  # size in points of a font whose letters are one inch wide
NOTHING = "0.8"  # grey for NaN


@dataclass(frozen=True)
class Row:
    """Images side by side with one colour scale; a colour bar, if it has a label, spans the last ``bar_rows`` rows.

    ``images`` are planes (F, ny, nx) or volumes (F, nz, ny, nx), for which ``way`` selects the view.
    """

    name: str
    images: NDArray[Any]
    colours: str
    low: float
    high: float
    label: str = ""
    bar_rows: int = 1
    extend: str = "neither"
    notes: Sequence[str] = ()
    way: Way = "projection"


def top(values: NDArray[Any]) -> float:
    """Upper end of a colour scale: the largest value, or 1 if all values are zero."""
    largest = float(values.max(initial=0.0, where=np.isfinite(values)))
    return largest if largest > 0 else 1.0


def panels(
    rows: Sequence[Row],
    field_of_view: tuple[float, ...],
    titles: Sequence[str],
    axes: str | None = None,
    *,
    heading: str = "",
    width: float = 1.3,
    beside: float = 0.0,
) -> "Figure":
    """Draw rows of tiles of a given width in inches, with ticks in mm at the left and the bottom.

    A space of ``beside`` inches to the right of them stays free.
    """
    from matplotlib.figure import Figure

    tile = Tile.of(field_of_view, axes, width)
    gap = 0.08 if len(tile.panels) == 1 else 0.2
    columns, (left, right, bottom, above) = len(rows[0].images), (0.8, 1.0, 0.5, 0.85 if heading else 0.45)
    lines = [line for row in rows for line in row.name.split("\n")]
    left += 0.18 * max(row.name.count("\n") for row in rows)
    size = max(7.0, min(10.0, 9.5 * width, LETTERS * tile.height / max(map(len, lines))))
    across = left + columns * (tile.width + gap) + right + beside
    figure = Figure(figsize=(across, bottom + len(rows) * (tile.height + gap) + above))
    for number, row in enumerate(rows):
        base, last = bottom + (len(rows) - 1 - number) * (tile.height + gap), number == len(rows) - 1
        middle = base + tile.height / 2
        write(figure, 0.12, middle, row.name, size=size, rotation=90, ha="left", va="center")
        for column, image in enumerate(row.images):
            place = left + column * (tile.width + gap), base
            planes = [panel.of(image, row.way) for panel in tile.panels]
            shown = draw_tile(figure, tile, place, planes, row, ticks=(column == 0, last))
            if tile.mm_per_inch is not None and row.way == "centre":
                _write_positions(figure, place[0] + tile.panels[1].left, base, tile, image.shape)
            if column < len(row.notes):
                write_inside(shown[0], row.notes[column])
            if number == 0 and column < len(titles):
                centre = place[0] + tile.width / 2
                write(figure, centre, base + tile.height + 0.08, titles[column], size=9, ha="center", va="bottom")
        if row.label:
            span = row.bar_rows * (tile.height + gap) - gap
            draw_bar(figure, (left + columns * (tile.width + gap) - gap + 0.13, base), span, shown[0], row)
    figure.suptitle(heading, fontsize=11)
    return figure


def draw_tile(
    figure: "Figure",
    tile: Tile,
    place: tuple[float, float],
    planes: Sequence[NDArray[Any]],
    row: Row,
    ticks: tuple[bool, bool] = (True, True),
) -> "list[AxesImage]":
    """Draw what the panels of one image show, the lower left corner at a place in inches, and a scale bar for volumes.

    Ticks at the left and at the bottom are labelled where wanted.
    """
    shown = []
    for panel, plane in zip(tile.panels, planes, strict=True):
        outer = panel.left == 0, panel.bottom == 0 or panel.along == -1
        labelled = ticks[0] and outer[0], ticks[1] and outer[1]
        shown.append(_draw_panel(figure, panel, place, plane, row, labelled))
    if tile.mm_per_inch is not None:
        _draw_scale_bar(figure, place[0] + tile.panels[1].left, place[1], tile)
    return shown


def _draw_panel(
    figure: "Figure",
    panel: Panel,
    place: tuple[float, float],
    plane: NDArray[Any],
    row: Row,
    labelled: tuple[bool, bool],
) -> "AxesImage":
    """Draw voxels in mm around the centre, with the first row at the bottom because vertical axes point up."""
    cell = add_axes(figure, place[0] + panel.left, place[1] + panel.bottom, panel.width, panel.height)
    height, width = (size / 2 for size in panel.size)
    extent = -width, width, -height, height
    shown: AxesImage = cell.imshow(plane, cmap=row.colours, origin="lower", extent=extent, interpolation="nearest")
    shown.set_clim(row.low, row.high)
    cell.set_facecolor(NOTHING)
    cell.tick_params(labelsize=8)
    for side, name, wanted in ((cell.yaxis, panel.axes[0], labelled[0]), (cell.xaxis, panel.axes[1], labelled[1])):
        if wanted:
            side.set_label_text(f"{name} / mm", fontsize=9)
        else:  # ticks take most of the time of a figure
            side.set_ticks([])
    cell.yaxis.set_label_coords(-0.42 / panel.width, 0.5)  # aligned for numbers of any length
    return shown


def draw_bar(figure: "Figure", place: tuple[float, float], height: float, shown: "AxesImage", row: Row) -> None:
    """Draw a colour bar at a place in inches; numbers at its ends do not touch those of the next bar."""
    inset = 0.04
    cell = add_axes(figure, place[0], place[1] + inset, 0.14, height - 2 * inset)
    bar = figure.colorbar(shown, cax=cell, extend=row.extend)
    bar.set_label(row.label, fontsize=9)
    bar.ax.tick_params(labelsize=8)


def _draw_scale_bar(figure: "Figure", left: float, bottom: float, tile: Tile) -> None:
    """A scale bar in the free corner of a tile."""
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    length = tile.scale_bar / (tile.mm_per_inch or 1.0)
    ends, level = (left / width, (left + length) / width), (bottom + 0.05) / height
    figure.add_artist(Line2D(ends, (level, level), color="black", linewidth=2, solid_capstyle="butt"))
    write(figure, left + length / 2, bottom + 0.09, f"{tile.scale_bar:g} mm", size=7, ha="center", va="bottom")


def _write_positions(figure: "Figure", left: float, bottom: float, tile: Tile, grid: tuple[int, ...]) -> None:
    """Write the positions of the slices into the free corner of a tile."""
    (deep, high), wide = tile.panels[1].size, tile.panels[0].size[1]
    names = tile.panels[0].axes[1], tile.panels[1].axes[1], tile.panels[0].axes[0]
    lines = [
        f"{name} = {offset(count, length):.3g} mm"
        for name, count, length in zip(names, grid[::-1], (wide, high, deep), strict=True)
    ]
    write(figure, left, bottom + 0.26, "\n".join(lines), size=6, ha="left", va="bottom")


def add_axes(figure: "Figure", left: float, bottom: float, width: float, height: float) -> Any:
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def write(figure: "Figure", left: float, bottom: float, text: str, **style: Any) -> Any:
    """Text at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.text(left / across, bottom / up, text, **style)


def write_inside(shown: "AxesImage", text: str) -> None:
    """Write small and white into an image."""
    cell: Any = shown.axes
    cell.text(0.04, 0.93, text, color="white", fontsize=7, va="top", transform=cell.transAxes)
