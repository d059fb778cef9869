"""Convert the result of `mpi-fast compare --json` to the table of the documentation.

    python bench/compare_table.py bench/results/compare.json [--markdown FILE]

The table has mean PSNR and SSIM of every method at every SNR, with the best of each column in bold, the coverage of our
intervals, and the difference between ours and the best opponent with its 95 % interval.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from mpi_fast.methods import get

LEVELS = 50, 80, 95


def table(content: dict[str, Any]) -> str:
    """Markdown of a report."""
    results = {(one["method"], one["snr_db"]): one for one in content["results"]}
    names, snrs = (list(dict.fromkeys(found)) for found in zip(*results, strict=True))
    merits = [merit for merit in ("psnr", "ssim") if merit in content["duels"]]
    head = " / ".join(merit.upper() for merit in merits)
    lines = [
        f"| {head} | {' | '.join(f'{snr:g} dB' for snr in snrs)} | ms a frame |",
        "|---" * (len(snrs) + 2) + "|",
    ]
    mean = {key: {merit: one["merits"][merit]["mean"] for merit in merits} for key, one in results.items()}
    best = {(snr, merit): max(mean[name, snr][merit] for name in names) for snr in snrs for merit in merits}
    for name in names:
        found = [[_figure(mean[name, snr][merit], merit, best[snr, merit]) for merit in merits] for snr in snrs]
        time = sorted(results[name, snr]["cpu_ms"] for snr in snrs)[len(snrs) // 2]
        title = get(name).title
        cells = " | ".join(" / ".join(one) for one in found)
        lines.append(f"| {f'**{title}**' if get(name).ours else title} | {cells} | {time:.1f} |")
    for merit in merits if any(content["duels"].values()) else ():  # not without ours, nor without an opponent
        won = {one["snr_db"]: one for one in content["duels"][merit]}
        cells = " | ".join(_duel(won[snr], merit) if snr in won else "" for snr in snrs)
        unit = ", dB" if merit == "psnr" else ""
        lines.append(f"| {merit.upper()}, gain over the best opponent{unit} | {cells} | |")
    for name in names:
        held = [results[name, snr]["merits"] for snr in snrs]
        if f"coverage_{LEVELS[0]}" in held[0]:
            cells = " | ".join(
                " / ".join(f"{100 * one[f'coverage_{level}']['mean']:.0f}" for level in LEVELS) for one in held
            )
            lines.append(f"| {get(name).title}: coverage of 50, 80, 95 % intervals, % | {cells} | |")
    return "\n".join(lines)


def _figure(value: float, merit: str, best: float) -> str:
    text = f"{value:.1f}" if merit == "psnr" else f"{value:.3f}"
    return f"**{text}**" if value == best else text


def _duel(one: dict[str, Any], merit: str) -> str:
    places = 1 if merit == "psnr" else 3
    mean, low, high = (f"{one[name]:+.{places}f}" for name in ("difference", "low", "high"))
    return f"{mean} [{low}, {high}] {get(one['opponent']).title}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    text = table(json.loads(options.report.read_text(encoding="utf-8")))
    print(text)
    if options.markdown:
        options.markdown.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
