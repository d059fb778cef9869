"""Figures: reconstructions as images with scales, and the demonstration's comparison.

Matplotlib is imported inside the functions, for it is optional and slow to load, and used without pyplot: a figure is
an object that its function makes and `save` writes, and no global state or display is touched.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.atomic import atomic_path
from mpi_fast.errors import InputError, MPIFastError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

Array = NDArray[np.float32]
FORMATS = (".png", ".pdf", ".svg", ".jpg")
CONCENTRATION, ERROR, UNCERTAINTY = "inferno", "RdBu_r", "viridis"
DPI = 150
MARKERS = "osD^vP*X<>hp"


def require(path: Path | None = None) -> None:
    """Check that figures can be made, and written under this name, before anything is computed for them.

    Raises
    ------
    MPIFastError
        Matplotlib is not installed.
    InputError
        The suffix of the name is none of `FORMATS`.
    """
    if path is not None and path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: a figure's name must end in one of {', '.join(FORMATS)}")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MPIFastError("figures need matplotlib: pip install 'mpi-fast[plots]'") from error


def save(figure: "Figure", path: Path, dpi: int = DPI, colours: int | None = None) -> None:
    """Write a figure in the format of the name's suffix; the file appears when whole.

    A PNG with no more than so many ``colours`` has a third of the size, if it is full of small images.
    """
    require(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
        if colours and path.suffix.lower() == ".png":
            from PIL import Image  # Matplotlib brings it

            with Image.open(temporary) as image:
                image.convert("RGB").quantize(colours).save(temporary, optimize=True)


def reconstruction_figure(
    images: Array,
    std: Array | None,
    field_of_view: tuple[float, ...],
    *,
    titles: Sequence[str] = (),
    axes: str = "zyx",
    unit: str = "of the delta sample",
) -> "Figure":
    """Show frames, and their standard deviation below, with common colour scales and axes in mm.

    Parameters
    ----------
    images, std : (F, ny, nx) or (F, nz, ny, nx)
        A column for each frame: keep to about ten. Of volumes their largest values along z are shown.
    field_of_view : (height, width) or (depth, height, width)
        In m.
    titles : sequence of str
        One for each frame.
    axes : str
        Their names, the vertical and the horizontal one last.
    unit : str
        Of the images, for the colour bar.
    """
    name = "concentration" if images.ndim == 3 else f"largest along {axes[0]}"
    images, std = _projected(images), None if std is None else _projected(std)
    axes, field_of_view = axes[-2:], field_of_view[-2:]
    rows = [_Row(name, images, CONCENTRATION, 0.0, _top(images), f"concentration\n({unit})")]
    if std is not None:
        rows.append(_Row("standard deviation", std, UNCERTAINTY, 0.0, _top(std), f"std\n({unit})"))
    return _panels(rows, field_of_view, titles, axes, panel=2.0)


@dataclass(frozen=True)
class Column:
    """What the comparison shows of one frame, images (ny, nx)."""

    title: str
    truth: Array
    baseline: Array
    image: Array
    std: Array


def comparison_figure(
    columns: Sequence[Column], field_of_view: tuple[float, ...], *, baseline: str = "ART", title: str = ""
) -> "Figure":
    """Truth, a baseline, the reconstruction, its error and its uncertainty, one row each; a column for each frame.

    The first three rows share one colour scale, from zero to the largest true concentration; the others have one each.
    """
    stack = {name: np.stack([getattr(c, name) for c in columns]) for name in ("truth", "baseline", "image", "std")}
    error, top, spread = stack["image"] - stack["truth"], _top(stack["truth"]), _top(stack["std"])
    rows = [
        _Row("truth", stack["truth"], CONCENTRATION, 0.0, top),
        _Row(baseline, stack["baseline"], CONCENTRATION, 0.0, top),
        _Row("mpi-fast", stack["image"], CONCENTRATION, 0.0, top, "concentration", bar_rows=3, extend="max"),
        _Row("error", error, ERROR, -0.5 * top, 0.5 * top, "mpi-fast - truth", extend="both"),
        _Row("uncertainty", stack["std"], UNCERTAINTY, 0.0, spread, "std", extend="max"),
    ]
    return _panels(rows, field_of_view, [column.title for column in columns], heading=title)


@dataclass(frozen=True)
class Strip:
    """One method in `methods_figure`: images (S, ny, nx) of one phantom, and curves over all phantoms, at S SNRs.

    ``notes`` are written into the images; ``curves`` has for each figure of merit its mean and the ends of its
    interval, (3, S). Curves of ``ours`` are black.
    """

    name: str
    images: Array
    notes: Sequence[str]
    curves: dict[str, NDArray[np.float64]]
    ours: bool = False


def methods_figure(
    truth: Array,
    strips: Sequence[Strip],
    snrs_db: Sequence[float],
    field_of_view: tuple[float, ...],
    *,
    title: str = "",
) -> "Figure":
    """One phantom by every method, its error below, a column for each SNR; and curves over all phantoms beside.

    All images share one colour scale, and all errors another one.

    Parameters
    ----------
    truth : (ny, nx)
    strips : sequence of Strip
    snrs_db : sequence of float
        Ascending.
    field_of_view : (height, width)
        In m.
    title : str
    """
    top, columns = _top(truth), len(snrs_db)
    rows = [_Row("truth", np.stack([truth] * columns), CONCENTRATION, 0.0, top, "concentration", extend="max")]
    for strip in strips:
        rows.append(_Row(strip.name.replace(", ", ",\n"), strip.images, CONCENTRATION, 0.0, top, notes=strip.notes))
        rows.append(_Row("error", strip.images - truth, ERROR, -0.5 * top, 0.5 * top))
    rows[-1] = replace(rows[-1], label="error", extend="both")
    panel, beside = 0.95, 6.0
    figure = _panels(rows, field_of_view, [f"{snr:g} dB" for snr in snrs_db], heading=title, panel=panel, beside=beside)
    width, height = figure.get_size_inches()
    names = list(strips[0].curves)
    for index, name in enumerate(names):
        share = min(0.9 / len(names), 4.5 / height)
        place = (width - beside + 0.5) / width, 0.94 - (index + 1) * share, (beside - 0.7) / width, share - 0.6 / height
        cell = figure.add_axes(place)
        for number, (strip, style) in enumerate(zip(strips, _styles(strips), strict=True)):
            mean, low, high = strip.curves[name]
            beside_each_other = np.asarray(snrs_db) + 0.12 * (number - (len(strips) - 1) / 2)
            cell.errorbar(beside_each_other, mean, (mean - low, high - mean), label=strip.name, **style)
        cell.set_ylabel(name)
        cell.set_xlabel("SNR of the signals / dB")
        cell.grid(alpha=0.3)
    cell.legend(fontsize=9, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16))
    return figure


def _styles(strips: Sequence[Strip]) -> list[dict[str, Any]]:
    """Of the curves: a colour for each opponent, and for ours black, solid for the last."""
    opponents = itertools.cycle(f"C{number}" for number in range(10))
    dashes = itertools.cycle((":", "--", "-."))
    styles: list[dict[str, Any]] = []
    for number, strip in enumerate(strips):
        look = {"color": "black", "linestyle": next(dashes)} if strip.ours else {"color": next(opponents)}
        marker = MARKERS[number % len(MARKERS)]
        styles.append({"marker": marker, "markersize": 4, "linewidth": 1.2, "elinewidth": 0.7, **look})
    if strips[-1].ours:
        styles[-1] |= {"linestyle": "-", "linewidth": 2.0}
    return styles


@dataclass(frozen=True)
class _Row:
    """Images side by side with one colour scale; a colour bar, if it has a label, spans the last ``bar_rows`` rows."""

    name: str
    images: NDArray[Any]
    colours: str
    low: float
    high: float
    label: str = ""
    bar_rows: int = 1
    extend: str = "neither"
    notes: Sequence[str] = ()


def _panels(
    rows: Sequence[_Row],
    field_of_view: tuple[float, ...],
    titles: Sequence[str],
    axes: str = "yx",
    *,
    heading: str = "",
    panel: float = 1.3,
    beside: float = 0.0,
) -> "Figure":
    """Draw rows of images, panels of so many inches, with ticks in mm at the left and the bottom.

    To the right of them ``beside`` inches stay free.

    Everything is placed by hand: Matplotlib's automatic layout and shared axes take ten seconds for fifty panels.
    """
    from matplotlib.figure import Figure

    columns, gap, (left, right, bottom, top) = len(rows[0].images), 0.08, (0.8, 1.0, 0.5, 0.85 if heading else 0.45)
    left += 0.18 * max(row.name.count("\n") for row in rows)
    high = panel * min(max(field_of_view[0] / field_of_view[1], 0.3), 3.0)
    width = left + columns * (panel + gap) + right + beside
    height = bottom + len(rows) * (high + gap) + top
    figure = Figure(figsize=(width, height))
    for number, row in enumerate(rows):
        base = bottom + (len(rows) - 1 - number) * (high + gap)
        for column, image in enumerate(row.images):
            place = (left + column * (panel + gap)) / width, base / height, panel / width, high / height
            cell = figure.add_axes(place)
            shown = _draw(cell, image, field_of_view, row)
            if column < len(row.notes):
                cell.text(0.04, 0.93, row.notes[column], color="white", fontsize=7, va="top", transform=cell.transAxes)
            cell.tick_params(labelsize=8, labelleft=column == 0, labelbottom=number == len(rows) - 1)
            if column == 0:
                cell.set_ylabel(f"{row.name}\n{axes[0]} / mm", fontsize=min(10.0, 9.5 * panel))
            if number == 0 and column < len(titles):
                cell.set_title(titles[column], fontsize=9)
            if number == len(rows) - 1:
                cell.set_xlabel(f"{axes[1]} / mm", fontsize=9)
        if row.label:
            span = row.bar_rows * (high + gap) - gap
            place = (left + columns * (panel + gap) + 0.05) / width, base / height, 0.14 / width, span / height
            bar = figure.colorbar(shown, cax=figure.add_axes(place), extend=row.extend)
            bar.set_label(row.label, fontsize=9)
            bar.ax.tick_params(labelsize=8)
    figure.suptitle(heading, fontsize=11)
    return figure


def _projected(images: Array) -> Array:
    """Volumes (F, nz, ny, nx) as planes, by their largest values along z; planes as they are."""
    return images if images.ndim == 3 else np.asarray(images.max(axis=1))


def _top(values: NDArray[Any]) -> float:
    """Upper end of a colour scale: the largest value, or 1 where there is nothing to see."""
    largest = float(values.max(initial=0.0))
    return largest if np.isfinite(largest) and largest > 0 else 1.0


def _draw(cell: "Axes", image: NDArray[Any], field_of_view: tuple[float, ...], row: _Row) -> "AxesImage":
    """Draw one image, voxels as they are: first row at the bottom, as y points up, in mm around the centre."""
    height, width = (1e3 * size / 2 for size in field_of_view)
    extent = -width, width, -height, height
    shown = cell.imshow(image, cmap=row.colours, origin="lower", extent=extent, interpolation="nearest")
    shown.set_clim(row.low, row.high)
    return shown
