"""The frames of a film: a figure of an image beside its uncertainty, of which each frame redraws a part."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.description import UNIT
from mpi_fast.plots.panels import CONCENTRATION, UNCERTAINTY, Row, draw_bar, draw_tile, write
from mpi_fast.plots.views import Tile

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.image import AxesImage

Array = NDArray[Any]
Pixels = NDArray[np.uint8]  # (rows, columns, 3)
DPI = 100
WIDTH = {2: 2.6, 3: 3.2}  # of a tile in inches, by number of dimensions


class Film:
    """Draws images, planes or volumes, one after the other with the same colour scales.

    Volumes are shown by the maxima along each axis.

    Parameters
    ----------
    field_of_view : (height, width) or (depth, height, width)
        In m.
    grid : tuple of int
        Shape of an image.
    limits : (image, std)
        Upper ends of the colour scales; None for the second without an uncertainty.
    axes : str, optional
        Names of the images' axes; default ``yx``, and ``zyx`` for volumes.
    unit : str
        Unit of the images.
    """

    def __init__(
        self,
        field_of_view: tuple[float, ...],
        grid: tuple[int, ...],
        limits: tuple[float, float | None],
        *,
        axes: str | None = None,
        unit: str = UNIT,
    ) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self._tile = Tile.of(field_of_view, axes, WIDTH[len(field_of_view)])
        volumes = len(field_of_view) == 3
        seen, empty = "\nmaximum projections" if volumes else "", np.zeros(grid, np.float32)
        rows = [Row(f"concentration{seen}", empty, CONCENTRATION, 0.0, limits[0], unit)]
        if limits[1] is not None:
            rows.append(Row(f"standard deviation{seen}", empty, UNCERTAINTY, 0.0, limits[1], unit))
        left, bar, bottom, above, even = 0.75, 1.0, 0.5, 0.9 if volumes else 0.75, 2 / DPI
        width, height = left + self._tile.width + bar, bottom + self._tile.height + above
        # MP4 requires even numbers of pixels
        size = np.ceil(len(rows) * width / even) * even, np.ceil(height / even) * even
        figure = Figure(figsize=size, dpi=DPI)
        self._shown: list[list[AxesImage]] = []
        self._marks: list[Artist] = []
        for index, row in enumerate(rows):
            place = left + index * width, bottom
            planes = [panel.of(empty, "projection") for panel in self._tile.panels]
            self._shown.append(draw_tile(figure, self._tile, place, planes, row))
            if not volumes:
                self._marks.extend(_scale_bar(self._shown[-1][0], self._tile))
            beside = place[0] + self._tile.width + 0.1
            draw_bar(figure, (beside, bottom), self._tile.height, self._shown[-1][0], row)
            middle, over = place[0] + self._tile.width / 2, bottom + self._tile.height + 0.08
            write(figure, middle, over, row.name, size=9, ha="center", va="bottom")
        self._title = figure.suptitle(" ", fontsize=11, family="monospace")
        self._canvas = FigureCanvasAgg(figure)
        for artist in (self._title, *self._marks, *(panel for panels in self._shown for panel in panels)):
            artist.set_animated(True)
        self._canvas.draw()
        self._blank = self._canvas.copy_from_bbox(figure.bbox)

    def draw(self, image: Array, std: Array | None, title: str) -> Pixels:
        """Draw one frame. Only changed parts are redrawn, which is ten times as fast as a new figure."""
        self._canvas.restore_region(self._blank)
        draw = self._canvas.figure.draw_artist
        self._title.set_text(title)
        draw(self._title)
        for panels, values in zip(self._shown, (image, std), strict=False):
            for shown, panel in zip(panels, self._tile.panels, strict=True):
                shown.set_data(panel.of(np.asarray(values), "projection"))
                draw(shown)
        for mark in self._marks:
            draw(mark)
        return np.array(self._canvas.buffer_rgba())[..., :3]


def _scale_bar(shown: "AxesImage", tile: Tile) -> "list[Artist]":
    """A scale bar with its length in mm in the lower right corner of a plane, which has no free corner."""
    cell: Any = shown.axes
    _, right, bottom, top = shown.get_extent()
    length, up = tile.scale_bar, 0.05 * (top - bottom)
    end = right - 0.05 * tile.panels[0].size[1]
    (line,) = cell.plot((end - length, end), (bottom + up,) * 2, color="white", linewidth=2, solid_capstyle="butt")
    style = {"color": "white", "fontsize": 7, "ha": "center", "va": "bottom"}
    return [line, cell.text(end - length / 2, bottom + 1.5 * up, f"{length:g} mm", **style)]
