"""``mpi-fast compare``: compare our method and others on the same frames, with a figure and tables."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from typer.core import TyperCommand

from mpi_fast.atomic import atomic_path
from mpi_fast.cli.option_inputs import files_of
from mpi_fast.cli.options import JsonFile, Model, Seed, parse_grid, with_commas
from mpi_fast.console import check_outputs, console, friendly, note, progress_bar, write_json
from mpi_fast.errors import InputError
from mpi_fast.grids import shown
from mpi_fast.limits import LARGEST_DECIBELS, decibels
from mpi_fast.machine import cores

if TYPE_CHECKING:
    from mpi_fast.comparison import Duel, Outcome, Setup
    from mpi_fast.noise import NoiseKind

OURS = "posterior"  # the method that all others are compared with
DPI, COLOURS = 90, 128  # for a figure with hundreds of small images
SSIM = "Gaussian window, sigma 1.5, data range = the true maximum"
CAPTION = """\
Means over {frames} frames of {families} phantom families, {scanner}, {grid} voxels, {noise} noise. PSNR: peak = the
true maximum. SSIM: {ssim}. Every opponent is tuned at every SNR on {validation}
other frames of the same scanner and families; mpi-fast is told nothing. Time: of one processor core."""


class ListsCommand(TyperCommand):
    """Command whose list options take values separated by commas or spaces."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the values of list options, see `with_commas`."""
        return super().parse_args(ctx, with_commas(args, ("--snr", "--methods")))


def compare(
    snr: Annotated[
        str, typer.Option(metavar="DB DB", help="SNRs of the signals in dB, separated by spaces or commas.")
    ] = "5,10,15,20,25,30,35",
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="NAME NAME",
            show_default="all that take less than a second",
            help="Names of methods, also those of other packages; an unknown name lists all.",
        ),
    ] = None,
    phantoms: Annotated[int, typer.Option(min=2, max=100_000, help="Test frames.")] = 64,
    scanner: Annotated[
        str, typer.Option(help="in or fine: scanner like those of the training; out: unlike them. Volumes: only in.")
    ] = "in",
    noise: Annotated[str, typer.Option(help="white, coloured, spiky or drift.")] = "white",
    grid: Annotated[
        str, typer.Option(help="Voxels of the grid: rows x columns, or planes x rows x columns.")
    ] = "19x19",
    model: Model = "default",
    seed: Seed = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, show_default="one for each core", help="Processes.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Figure to write.")] = None,
    phantom: Annotated[
        int | None,
        typer.Option(min=0, show_default="3, or the last", help="Test frame that the figure shows."),
    ] = None,
    json_file: JsonFile = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write every frame's figures of merit.")] = None,
) -> None:
    """Compare tuned methods at several noise levels, on scanners and phantoms that were not used in training."""
    with friendly():
        check_outputs(output, json_file, csv_file, inputs=files_of(model=model))
        if output:
            from mpi_fast import plots

            plots.require(output)
        phantom = min(3, phantoms - 1) if phantom is None else phantom
        if phantom >= phantoms:
            raise InputError(f"--phantom {phantom}: expected a number below {phantoms}, which --phantoms says")
        from mpi_fast import comparison
        from mpi_fast.heldout import families
        from mpi_fast.methods import DEFAULT

        setup = comparison.Setup(scanner, cast("NoiseKind", noise), phantoms, seed, model, parse_grid(grid))
        snrs = _levels(snr)
        names = _served(setup, list(DEFAULT) if methods is None else methods.replace(",", " ").split())
        with progress_bar("methods x SNRs") as bar:
            task = bar.add_task("tuning and reconstructing", total=len(names) * len(snrs))
            processes = workers or cores()
            outcomes = comparison.compare(setup, names, snrs, processes, lambda: bar.advance(task))
        shown_merits = {merit: places for merit, places in (("psnr", 1), ("ssim", 3)) if merit in setup.merits}
        duels = {merit: comparison.duels(outcomes, OURS, merit) for merit in shown_merits}
        for merit, places in shown_merits.items():
            console.print(_table(outcomes, merit, places))
            if duels[merit]:
                console.print(_gains(duels[merit], merit, places))
        if any("coverage_95" in one.merits for one in outcomes.values()):
            console.print(_coverage(outcomes))
        caption = CAPTION.format(
            frames=phantoms,
            families=len(families(len(setup.grid))),
            scanner=setup.heldout.name,
            grid=shown(setup.grid),
            noise=noise,
            ssim=SSIM if "ssim" in setup.merits else "none, the grid is narrower than its window of 11 voxels",
            validation=setup.validation,
        )
        console.print(" ".join(caption.split()), style="dim")
        if output:
            plots.save(_figure(setup, outcomes, phantom), output, DPI, COLOURS)
            console.print(f"wrote {output}", soft_wrap=True)
        if json_file:
            write_json(json_file, summary(setup, outcomes, duels))
        if csv_file:
            _write_csv(csv_file, outcomes)


def _served(setup: "Setup", names: list[str]) -> list[str]:
    """The methods that support the grid; a note names the others."""
    from mpi_fast.comparison import refused

    reasons = refused(setup, names)
    for reason in dict.fromkeys(reasons.values()):
        note(f"left out: {', '.join(name for name in names if reasons.get(name) == reason)}: {reason}")
    served = [name for name in names if name not in reasons]
    if not served:
        raise InputError(f"no method is left for a grid of {shown(setup.grid)} voxels")
    return served


def _levels(text: str) -> list[float]:
    try:
        levels = sorted({decibels(float(item)) for item in text.replace(",", " ").split()})
    except ValueError:  # also an InputError
        levels = []
    if not levels:
        raise InputError(
            f"--snr {text}: expected numbers in dB from {-LARGEST_DECIBELS} to {LARGEST_DECIBELS}, such as 5,15,25"
        )
    return levels


def _axes(outcomes: "dict[tuple[str, float], Outcome]") -> tuple[list[str], list[float]]:
    """Methods and SNRs, in order."""
    return list(dict.fromkeys(name for name, _ in outcomes)), list(dict.fromkeys(snr for _, snr in outcomes))


def _table(outcomes: "dict[tuple[str, float], Outcome]", merit: str, places: int) -> Table:
    """Table of methods and SNRs, with a star at the best of each column; seven SNRs fit into 80 columns."""
    from mpi_fast.methods import get

    names, snrs = _axes(outcomes)
    table = Table(box=SIMPLE_HEAD, collapse_padding=True, caption="*: best of its column")
    for head in (_unit(merit), *(f"{snr:g} dB" for snr in snrs), "ms a frame"):
        table.add_column(head, overflow="fold")
    best = {snr: max(outcomes[name, snr].merits[merit].mean() for name in names) for snr in snrs}
    for name in names:
        cells = []
        for snr in snrs:
            mean = outcomes[name, snr].merits[merit].mean()
            text = f"{mean:.{places}f}"
            cells.append(f"*{text}" if mean == best[snr] else text)
        cpu = np.median([outcomes[name, snr].cpu_ms for snr in snrs])
        table.add_row(get(name).title, *cells, f"{cpu:.1f}")
    return table


def _gains(duels: "list[Duel]", merit: str, places: int) -> Table:
    """A line for each SNR: our gain over the best opponent."""
    from mpi_fast.methods import get

    table = Table("SNR", f"{_unit(merit)}, mpi-fast less best opponent", "best opponent", box=SIMPLE_HEAD)
    for one in duels:
        gain = f"{one.difference:+.{places}f} [{one.low:+.{places}f}, {one.high:+.{places}f}]"
        table.add_row(f"{one.snr_db:g} dB", gain, get(one.opponent).title)
    table.caption = "in brackets: 95 % interval of the mean difference, bootstrap over frames"
    return table


def _unit(merit: str) -> str:
    return f"{merit.upper()}{' / dB' if merit == 'psnr' else ''}"


def _coverage(outcomes: "dict[tuple[str, float], Outcome]") -> Table:
    """Share of voxels within the intervals, for methods that give an uncertainty; a line for each SNR."""
    from mpi_fast.methods import get

    names, snrs = _axes(outcomes)
    certain = [name for name in names if "coverage_95" in outcomes[name, snrs[0]].merits]
    table = Table("coverage", *(get(name).title for name in certain), box=SIMPLE_HEAD)
    for snr in snrs:
        table.add_row(f"{snr:g} dB", *(_held(outcomes[name, snr]) for name in certain))
    table.caption = "true voxel values within intervals of 50, 80 and 95 %, in the trajectory's field of view"
    return table


def _held(outcome: "Outcome") -> str:
    return " / ".join(f"{100 * outcome.merits[f'coverage_{level}'].mean():.0f}" for level in (50, 80, 95)) + " %"


def summary(
    setup: "Setup", outcomes: "dict[tuple[str, float], Outcome]", duels: "dict[str, list[Duel]]"
) -> dict[str, Any]:
    """All results except images: means with intervals, tuned parameters, comparisons."""
    from mpi_fast.comparison import interval

    lines = []
    for one in outcomes.values():
        merits = {
            name: {"mean": values.mean(), "interval": interval(values), "std": values.std(ddof=1)}
            for name, values in one.merits.items()
        }
        tuned = {
            "parameters": one.tuned.parameters,
            "psnr_validation": one.tuned.score,
            "interior": one.tuned.interior,
            "curves": one.tuned.curves,
        }
        about = {"method": one.method, "snr_db": one.snr_db, "cpu_ms": one.cpu_ms}
        lines.append({**about, "merits": merits, "tuned": tuned})
    won = {merit: [{**vars(one), "verdict": one.verdict} for one in found] for merit, found in duels.items()}
    return {"setup": {**vars(setup), "validation": setup.validation}, "results": lines, "duels": won}


def _write_csv(path: Path, outcomes: "dict[tuple[str, float], Outcome]") -> None:
    """One line for each method, SNR and frame."""
    names = list(dict.fromkeys(name for one in outcomes.values() for name in one.merits))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["method", "snr_db", "frame", *names])
        for one in outcomes.values():
            for frame in range(len(one.image)):
                values = (f"{one.merits[name][frame]:.6g}" if name in one.merits else "" for name in names)
                writer.writerow([one.method, f"{one.snr_db:g}", frame, *values])


def _figure(setup: "Setup", outcomes: "dict[tuple[str, float], Outcome]", phantom: int) -> Any:
    from mpi_fast import plots
    from mpi_fast.comparison import frames, interval
    from mpi_fast.methods import get

    names, snrs = _axes(outcomes)
    truth = frames(setup, snrs[0])[1][phantom]
    strips = []
    for name in names:
        mine = [outcomes[name, snr] for snr in snrs]
        curves = {
            title: np.array([[one.merits[merit].mean(), *interval(one.merits[merit])] for one in mine]).T
            for merit, title in (("psnr", "PSNR / dB"), ("ssim", "SSIM"))
            if merit in setup.merits
        }
        notes = [f"{one.merits['psnr'][phantom]:.1f} dB" for one in mine]
        images = np.stack([one.image[phantom] for one in mine])
        strips.append(plots.Strip(get(name).title, images, notes, curves, get(name).ours))
    heldout = setup.heldout
    title = (
        f"Scanner {heldout.name}, {setup.noise} noise: one phantom, and curves over {setup.phantoms} (95 % intervals)"
    )
    return plots.methods_figure(truth, strips, snrs, heldout.scanner.field_of_view, title=title)
