"""Limits of a calibration, as ``info`` and ``calibrate`` report them: resolution and expected image quality."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from mpi_fast.console import note, progress_bar
from mpi_fast.errors import MPIFastError
from mpi_fast.grids import shown
from mpi_fast.resolution import SNR_DB, SNRS_DB, Resolution, resolution

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mpi_fast.calibration import Calibration
    from mpi_fast.forecast import Forecast
    from mpi_fast.mdf import Grid

BLOCKS = 9  # numbers along each axis of the printed map
FINE = 3.0  # most voxels across a resolved cell: two suffice (Nyquist), and noise needs some more


@dataclass(frozen=True)
class Outlook:
    """The limits of one calibration.

    Attributes
    ----------
    grid : Grid
        Grid of the calibration in space.
    resolved : sequence of Resolution
        Resolution at each of `SNRS_DB`.
    expected : sequence of Forecast
        Forecast at each of `SNRS_DB`, or empty.
    """

    grid: "Grid"
    resolved: Sequence[Resolution]
    expected: Sequence["Forecast"]

    @classmethod
    def of(cls, calibration: "Calibration", quality: bool = True) -> "Outlook":
        """Compute the limits; with ``quality``, frames are simulated, with a progress bar."""
        from mpi_fast.pairing import image_grid

        resolved = [resolution(calibration, snr_db) for snr_db in SNRS_DB]
        return cls(image_grid(calibration), resolved, expected(calibration) if quality else [])

    @property
    def mapped(self) -> Resolution:
        """The resolution whose map is shown."""
        return self.resolved[SNRS_DB.index(SNR_DB)]

    def tables(self, title: str) -> Iterator[Table]:
        """Tables for the screen: a line for each SNR, and the map in numbers."""
        phantoms = f"; PSNR of {self.expected[0].phantoms} simulated phantoms" if self.expected else ""
        caption = f"finest detail: how wide a point is seen where it is seen best{phantoms}"
        table = Table(title=f"limits of {title}", title_justify="left", caption=caption, caption_justify="left")
        for head in ("SNR", "measured in effect", "finest detail"):
            table.add_column(head)
        if self.expected:
            table.add_column("PSNR (worst, best)")
            table.add_column("95 % coverage")
        for number, found in enumerate(self.resolved):
            cells = [
                f"{found.snr_db:g} dB",
                f"{found.effective_rank:.0f} of {found.diagonal.size}",
                f"{_millimetres(found)}, {found.cell:.1f} voxels",
            ]
            if self.expected:
                will = self.expected[number]
                cells += [f"{will.psnr_db:.1f} ({will.worst_db:.1f}, {will.best_db:.1f}) dB", f"{will.held:.0%}"]
            table.add_row(*cells)
        yield table
        for caption, plane, axes, lengths in self._slices():
            yield _numbers(f"resolution at {SNR_DB:g} dB{caption}, in %", plane, axes, lengths)

    def _slices(self) -> Iterator[tuple[str, NDArray[np.float64], str, tuple[float, ...]]]:
        """The map of a plane, or three of a volume through its middle: caption, values, axes, lengths in mm."""
        from mpi_fast.plots.views import central, offset

        values, axes = self.mapped.diagonal, self.grid.axes
        lengths = tuple(1e3 * abs(length) for length in self.grid.field_of_view)
        if values.ndim == 2:
            yield "", values, axes, lengths
            return
        for along, name in enumerate(axes):
            place = offset(values.shape[along], lengths[along])
            rest = lengths[:along] + lengths[along + 1 :]
            yield f", {name} = {place:.3g} mm", central(values, along), axes.replace(name, ""), rest

    def figure(self) -> "Figure":
        """The map at each SNR as a picture."""
        from mpi_fast.plots import resolution_figure

        maps = np.stack([one.diagonal for one in self.resolved])
        titles = [f"{one.snr_db:g} dB" for one in self.resolved]
        return resolution_figure(maps, self.grid.field_of_view, titles=titles, axes=self.grid.axes)

    def facts(self) -> dict[str, Any]:
        """All results and the whole map, for a JSON file."""
        at = []
        for number, found in enumerate(self.resolved):
            numbers: dict[str, Any] = {"snr_db": found.snr_db, "effective_rank": found.effective_rank}
            numbers |= {"cell_voxels": found.cell, "cell_mm": [1e3 * size for size in found.cell_size]}
            at.append(numbers | (asdict(self.expected[number]) if self.expected else {}))
        whole = {"snr_db": SNR_DB, "axes": self.grid.axes, "diagonal": self.mapped.diagonal}
        return {"limits": at, "resolution map": whole}


def expected(calibration: "Calibration") -> list["Forecast"]:
    """Expected quality at each of `SNRS_DB`; empty, with a note, if no network is available."""
    from mpi_fast.forecast import forecast

    found: list[Forecast] = []
    try:
        with progress_bar() as bar:
            task = bar.add_task("simulating frames", total=len(SNRS_DB))
            for one in forecast(calibration, SNRS_DB):
                found.append(one)
                bar.advance(task)
    except MPIFastError as error:
        note(f"the quality of images is not known: {error}")
        return []
    return found


def too_fine(found: Resolution) -> str | None:
    """A line that says that the grid is far finer than the resolution, or None if it is not.

    The criterion is that even the best-resolved voxels return with less than ``1 / FINE^2`` of their own value (in
    volumes ``1 / FINE^3``). Then each measured value is spread over nine voxels (27), and only the prior distinguishes
    them.
    """
    if found.cell <= FINE:
        return None
    return (
        f"{shown(found.diagonal.shape)} voxels are far finer than what is measured: at {found.snr_db:g} dB a point is "
        f"seen {_millimetres(found)} wide at best, {found.cell:.1f} voxels each way, and within that the network's "
        f"prior alone decides; {shown(_coarser(found))} voxels would hold as much"
    )


def _millimetres(found: Resolution) -> str:
    return " x ".join(f"{1e3 * size:.2g}" for size in found.cell_size) + " mm"


def _coarser(found: Resolution) -> tuple[int, ...]:
    """A grid of two voxels for each resolved cell, along each axis."""
    return tuple(max(1, round(2 * count / found.cell)) for count in found.diagonal.shape)


def _numbers(title: str, plane: NDArray[np.float64], axes: str, lengths: tuple[float, ...]) -> Table:
    """A map as a table of means over blocks of voxels, arranged as in a picture with the vertical axis up."""
    table = Table(title=title, title_justify="left")
    rows, columns = (_blocks(count) for count in plane.shape)
    middles = [
        [((block.mean() + 0.5) / count - 0.5) * length for block in blocks]
        for blocks, count, length in zip((rows, columns), plane.shape, lengths, strict=True)
    ]
    table.add_column(f"{axes[0]} \\ {axes[1]} / mm", justify="right")
    for place in middles[1]:
        table.add_column(f"{place:.3g}", justify="right")
    for block, place in zip(rows[::-1], middles[0][::-1], strict=True):
        means = [100 * plane[np.ix_(block, other)].mean() for other in columns]
        table.add_row(f"{place:.3g}", *(f"{mean:.0f}" for mean in means))
    return table


def _blocks(count: int) -> list[NDArray[np.int64]]:
    """Voxels along an axis in a few blocks, symmetric about the middle."""
    voxels = np.arange(count)
    if count <= BLOCKS:
        return np.split(voxels, count)
    middle = count // BLOCKS
    middle += (count - middle) % 2
    sides = [len(part) for part in np.array_split(voxels[: (count - middle) // 2], BLOCKS // 2)]
    return np.split(voxels, np.cumsum([*sides, middle, *sides[:0:-1]]))
