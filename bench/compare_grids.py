"""Image quality on grids of every shape, planes and volumes, compared with every tuned method that supports them.

    python bench/compare_grids.py [--grids 8x8,19x19x19] [--snrs 15,25] [--frames 28] [--volumes 8] [--onto FILE]
                          [--methods art,tv] [--json FILE] [--markdown FILE]

The scanner is held out, and has each grid over the same field of view. The phantom families are not used in training.
Noise is white at ``SNR = 20 log10(||A x|| / ||noise||)`` over the selected rows of each frame. PSNR takes
the true maximum as peak; images are clipped at zero, nothing else. Every opponent is tuned on each grid at each SNR, on
other frames of the same scanner and families (six for volumes), better than a user could do. Ours has no parameter.
Differences are paired, with 95 % intervals by bootstrap over the frames. Results are written after every grid, and
``--onto`` adds to an earlier run on the same frames, so that opponents need no second run after more training of our
network.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from mpi_fast.cli.options import parse_grid
from mpi_fast.comparison import SCANNERS, Outcome, Setup, compare, interval, refused
from mpi_fast.console import progress_bar, write_json
from mpi_fast.grids import shown
from mpi_fast.machine import cores
from mpi_fast.methods import DEFAULT, get

GRIDS = "8x8,13x13,26x13,31x31,40x40,44x44,64x48,19x19x19"
OURS, STANDARD = "posterior", "art"
DISPLAY = Console(stderr=True)
Row = dict[str, Any]


def evaluate(setup: Setup, names: list[str], snrs: list[float], workers: int) -> dict[float, dict[str, Row]]:
    """Results of the methods that support the grid, by SNR and name."""
    reasons = refused(setup, names)
    for name, reason in reasons.items():
        DISPLAY.print(f"{shown(setup.grid)}: {name} left out: {reason}")
    served = [name for name in names if name not in reasons]
    with progress_bar(f"{shown(setup.grid)} voxels") as bar:
        task = bar.add_task("tuning and reconstructing", total=len(served) * len(snrs))
        outcomes = compare(setup, served, snrs, workers, lambda: bar.advance(task))
    return {snr: {name: of_method(setup, outcomes[name, snr]) for name in served} for snr in snrs}


def of_method(setup: Setup, outcome: Outcome) -> Row:
    """Results of a method: means over all frames, and the PSNR of each frame, for paired differences."""
    merits = [merit for merit in outcome.merits if merit != "psnr"]
    return {
        "psnr": outcome.merits["psnr"].tolist(),
        **{merit: float(outcome.merits[merit].mean()) for merit in merits},
        "cpu_ms": outcome.cpu_ms,
        "tuned": outcome.tuned.parameters,
        "interior": outcome.tuned.interior,
    }


def summary(setup: Setup, methods: dict[str, Row], snr_db: float) -> Row:
    """The numbers of one line of the table."""
    psnr = {name: np.array(found["psnr"]) for name, found in methods.items()}
    best = max((name for name in psnr if not get(name).ours), key=lambda name: psnr[name].mean())
    return {
        "scanner": setup.heldout.name,
        "grid": setup.grid,
        "snr_db": snr_db,
        "frames": setup.phantoms,
        "seed": setup.seed,
        "validation": setup.validation,
        "methods": methods,
        "less_art": _gain(psnr[OURS], psnr[STANDARD]),
        "best_other": best,
        "less_best": _gain(psnr[OURS], psnr[best]),
        "coverage_95": methods[OURS]["coverage_95"],
    }


def _gain(ours: np.ndarray, theirs: np.ndarray) -> list[float]:
    """Mean difference, and the ends of its 95 % interval."""
    return [float((ours - theirs).mean()), *interval(ours - theirs)]


def measured_before(path: Path | None) -> list[Row]:
    """The lines of an earlier run."""
    return [] if path is None else list(json.loads(path.read_text(encoding="utf-8")))


def added(setup: Setup, snr_db: float, methods: dict[str, Row], before: list[Row]) -> dict[str, Row]:
    """Present results of the methods, and earlier results on the same frames."""
    of = setup.heldout.name, list(setup.grid), snr_db, setup.phantoms, setup.seed
    same = [
        one for one in before if (one["scanner"], list(one["grid"]), one["snr_db"], one["frames"], one["seed"]) == of
    ]
    return {**(same[0]["methods"] if same else {}), **methods}


def table(results: list[Row]) -> str:
    """Results as Markdown; the last lines are the means over all planes at each SNR."""
    lines = [
        "| grid | SNR | ART | best opponent | mpi-fast | gain over ART | gain over the best | 95 % coverage |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        mean = {name: float(np.mean(found["psnr"])) for name, found in one["methods"].items()}
        best, most = one["best_other"], max(mean.values())
        art, other, ours = (_psnr(mean[name], most) for name in (STANDARD, best, OURS))
        lines.append(
            f"| {shown(one['grid'])} | {one['snr_db']:g} dB | {art} | {other} {get(best).title} | {ours} "
            f"| {_difference(one['less_art'])} | {_difference(one['less_best'])} | {100 * one['coverage_95']:.0f} % |"
        )
    planes = [one for one in results if len(one["grid"]) == 2]
    for snr in dict.fromkeys(one["snr_db"] for one in planes):
        same = [one for one in planes if one["snr_db"] == snr]
        art, other, ours = (
            np.mean([np.mean(one["methods"][one.get(key, key)]["psnr"]) for one in same])
            for key in (STANDARD, "best_other", OURS)
        )
        less_art, less_best = (np.mean([one[key][0] for one in same]) for key in ("less_art", "less_best"))
        held = np.mean([one["coverage_95"] for one in same])
        lines.append(
            f"| **mean of {len(same)} planes** | {snr:g} dB | {art:.1f} | {other:.1f} | {ours:.1f} | {less_art:+.1f} "
            f"| {less_best:+.1f} | {100 * held:.0f} % |"
        )
    tried = dict.fromkeys(name for one in results for name in one["methods"] if not get(name).ours)
    lines += ["", f"Opponents: {', '.join(get(name).title for name in tried)}."]
    return "\n".join(lines)


def _psnr(value: float, best: float) -> str:
    return f"**{value:.1f}**" if value == best else f"{value:.1f}"


def _difference(values: list[float]) -> str:
    mean, low, high = values
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grids", default=GRIDS, help="such as 26x13 or 19x19x19, separated by commas")
    parser.add_argument("--scanner", default="in", choices=list(SCANNERS), help="scanner of planes; volumes have one")
    parser.add_argument("--methods", default=",".join(DEFAULT))
    parser.add_argument("--snrs", default="15,25")
    parser.add_argument("--frames", type=int, default=28, help="frames of each plane")
    parser.add_argument("--volumes", type=int, default=8, help="frames of each volume")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=cores(), help="processes; each takes 3 GB for a volume")
    parser.add_argument("--onto", type=Path, help="the JSON of an earlier run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    before = measured_before(options.onto)
    wanted = [*options.methods.split(","), OURS, *([] if before else [STANDARD])]
    names, snrs = list(dict.fromkeys(wanted)), [float(snr) for snr in options.snrs.split(",")]
    results: list[Row] = []
    for grid in map(parse_grid, options.grids.split(",")):
        flat = len(grid) == 2
        setup = Setup(
            scanner=options.scanner if flat else "in",
            phantoms=options.frames if flat else options.volumes,
            seed=options.seed,
            grid=grid,
        )
        found = evaluate(setup, names, snrs, options.workers)
        results += [summary(setup, added(setup, snr, methods, before), snr) for snr, methods in found.items()]
        if options.markdown:
            options.markdown.write_text(table(results) + "\n", encoding="utf-8")
        if options.json:
            write_json(options.json, results)
    print(table(results))


if __name__ == "__main__":
    main()
