"""Image quality on grids of every shape, planes and volumes, beside every method tuned.

    python bench/grids.py [--grids 8x8,19x19x19] [--snrs 15,25] [--frames 28] [--volumes 8] [--json FILE]
                          [--markdown FILE]

The scanner is held out, and has each grid over the same field of view; the phantoms are of families that training
never sees. Noise is white at ``SNR = 20 log10(||A x|| / ||noise||)`` over the selected rows of each frame. PSNR takes
the true maximum as peak; images are clipped at zero, nothing else. Every opponent is tuned on each grid at each SNR, on
other frames of the same scanner and families (of volumes on six): more than a user could do. Ours has no parameter.
Differences are paired, with 95 % intervals by bootstrap over the frames. Results are written after every grid.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mpi_fast.cli.options import parse_grid
from mpi_fast.comparison import SCANNERS, Outcome, Setup, compare, duels, interval, refused
from mpi_fast.console import progress_bar
from mpi_fast.grids import shown
from mpi_fast.machine import cores
from mpi_fast.methods import DEFAULT, get

GRIDS = "8x8,13x13,26x13,31x31,40x40,44x44,64x48,19x19x19"
OURS, STANDARD = "posterior", "art"
DISPLAY = Console(stderr=True)


def evaluate(setup: Setup, names: list[str], snrs: list[float], workers: int) -> list[dict[str, Any]]:
    """What the methods that serve the grid make of it, at every SNR."""
    reasons = refused(setup, names)
    for name, reason in reasons.items():
        DISPLAY.print(f"{shown(setup.grid)}: {name} left out: {reason}")
    served = [name for name in names if name not in reasons]
    with progress_bar(f"{shown(setup.grid)} voxels") as bar:
        task = bar.add_task("tuning and reconstructing", total=len(served) * len(snrs))
        outcomes = compare(setup, served, snrs, workers, lambda: bar.advance(task))
    return [summary(setup, {name: outcomes[name, snr] for name in served}, snr) for snr in snrs]


def summary(setup: Setup, outcomes: dict[str, Outcome], snr_db: float) -> dict[str, Any]:
    """One line of the table."""
    ours = outcomes[OURS].merits
    of_methods = {
        name: {
            **{merit: float(one.merits[merit].mean()) for merit in setup.merits},
            "cpu_ms": one.cpu_ms,
            "tuned": one.tuned.parameters,
            "interior": one.tuned.interior,
        }
        for name, one in outcomes.items()
    }
    (best,) = duels({(name, snr_db): one for name, one in outcomes.items()}, OURS)
    against_art = ours["psnr"] - outcomes[STANDARD].merits["psnr"]
    return {
        "scanner": setup.heldout.name,
        "grid": setup.grid,
        "snr_db": snr_db,
        "frames": setup.phantoms,
        "validation": setup.validation,
        "methods": of_methods,
        "less_art": [float(against_art.mean()), *interval(against_art)],
        "best_other": best.opponent,
        "less_best": [best.difference, best.low, best.high],
        "coverage_95": float(ours["coverage_95"].mean()),
    }


def table(results: list[dict[str, Any]]) -> str:
    """Results as Markdown, with the means over the planes at each SNR last."""
    names = list(dict.fromkeys(name for one in results for name in one["methods"]))
    titles = " | ".join(get(name).title for name in names)
    lines = [
        f"| grid | SNR | {titles} | less ART | less the best other | 95 % intervals hold |",
        "|---" * (len(names) + 5) + "|",
    ]
    for one in results:
        found = {name: of_method["psnr"] for name, of_method in one["methods"].items()}
        cells = (_psnr(found.get(name), max(found.values())) for name in names)
        lines.append(
            f"| {shown(one['grid'])} | {one['snr_db']:g} dB | {' | '.join(cells)} | {_difference(one['less_art'])} "
            f"| {_difference(one['less_best'])} {get(one['best_other']).title} | {100 * one['coverage_95']:.0f} % |"
        )
    planes = [one for one in results if len(one["grid"]) == 2]
    for snr in dict.fromkeys(one["snr_db"] for one in planes):
        same = [one for one in planes if one["snr_db"] == snr]
        psnr = {n: [one["methods"][n]["psnr"] for one in same if n in one["methods"]] for n in names}
        means = {name: float(np.mean(values)) for name, values in psnr.items() if len(values) == len(same)}
        cells = (_psnr(means.get(name), max(means.values())) for name in names)
        less_art, less_best = (np.mean([one[key][0] for one in same]) for key in ("less_art", "less_best"))
        held = np.mean([one["coverage_95"] for one in same])
        lines.append(
            f"| **mean of {len(same)} planes** | {snr:g} dB | {' | '.join(cells)} | {less_art:+.1f} | {less_best:+.1f} "
            f"| {100 * held:.0f} % |"
        )
    return "\n".join(lines)


def _psnr(value: float | None, best: float) -> str:
    return "" if value is None else f"**{value:.1f}**" if value == best else f"{value:.1f}"


def _difference(values: list[float]) -> str:
    mean, low, high = values
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grids", default=GRIDS, help="rows x columns, or planes before them, with commas between")
    parser.add_argument("--scanner", default="in", choices=list(SCANNERS), help="of planes; volumes have one")
    parser.add_argument("--methods", default=",".join(DEFAULT))
    parser.add_argument("--snrs", default="15,25")
    parser.add_argument("--frames", type=int, default=28, help="of each plane")
    parser.add_argument("--volumes", type=int, default=8, help="of each volume")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=cores(), help="processes; a volume's take 3 GB each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    names = list(dict.fromkeys([*options.methods.split(","), STANDARD, OURS]))
    snrs = [float(snr) for snr in options.snrs.split(",")]
    results: list[dict[str, Any]] = []
    for grid in map(parse_grid, options.grids.split(",")):
        flat = len(grid) == 2
        setup = Setup(
            scanner=options.scanner if flat else "in",
            phantoms=options.frames if flat else options.volumes,
            seed=options.seed,
            grid=grid,
        )
        results += evaluate(setup, names, snrs, options.workers)
        if options.markdown:
            options.markdown.write_text(table(results) + "\n", encoding="utf-8")
        if options.json:
            options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
