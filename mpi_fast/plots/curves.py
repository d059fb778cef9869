"""The comparison of methods: one phantom by each method, and curves over many phantoms."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.plots.panels import CONCENTRATION, ERROR, Row, add_axes, panels, top
from mpi_fast.plots.views import projected

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float32]
MARKERS = "osD^vP*X<>hp"


@dataclass(frozen=True)
class Strip:
    """One method in `methods_figure`: images (S, ny, nx) of one phantom, and curves over all phantoms, at S SNRs.

    The images may be volumes (S, nz, ny, nx). ``notes`` are written into them. ``curves`` contains, for each figure of
    merit, its mean and the ends of its interval, (3, S). Curves of ``ours`` are black.
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
    """One phantom by every method, with its error below and a column for each SNR; beside it, curves over all phantoms.

    All images share one colour scale, and all errors another one. For volumes, the largest values along z are shown,
    as the title says.

    Parameters
    ----------
    truth : (ny, nx) or (nz, ny, nx)
    strips : sequence of Strip
    snrs_db : sequence of float
        Ascending.
    field_of_view : (height, width) or (depth, height, width)
        In m.
    title : str
    """
    largest, columns = top(truth), len(snrs_db)
    errors = [strip.images - truth for strip in strips]
    if truth.ndim == 3:
        title = f"{title}\nof volumes, the largest values along z".strip()
        truth, field_of_view = projected(truth, -3), field_of_view[1:]
        strips = [replace(strip, images=projected(strip.images, -3)) for strip in strips]
        errors = [projected(error, -3) for error in errors]
    rows = [Row("truth", np.stack([truth] * columns), CONCENTRATION, 0.0, largest, "concentration", extend="max")]
    for strip, error in zip(strips, errors, strict=True):
        rows.append(Row(strip.name.replace(", ", ",\n"), strip.images, CONCENTRATION, 0.0, largest, notes=strip.notes))
        rows.append(Row("error", error, ERROR, -0.5 * largest, 0.5 * largest))
    rows[-1] = replace(rows[-1], label="error", extend="both")
    beside, names = 6.0, [f"{snr:g} dB" for snr in snrs_db]
    figure = panels(rows, field_of_view, names, heading=title, width=0.95, beside=beside)
    width, height = figure.get_size_inches()
    merits = list(strips[0].curves)
    share = min(0.9 * height / len(merits), 4.5)
    for index, name in enumerate(merits):
        bottom = 0.94 * height - (index + 1) * share
        cell = add_axes(figure, width - beside + 0.5, bottom, beside - 0.7, share - 0.6)
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
    """Styles of the curves: a colour for each opponent, and for ours black, solid for the last."""
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
