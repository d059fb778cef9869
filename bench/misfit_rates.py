"""Rates of false alarms for fitting data and of detections for foreign data: bench/results/misfit.md and .json.

The frames are of held-out scanners and phantoms, with the same noise in all of them, as in a scanner, and scaled to the
stated SNR. The mean of 16 background frames is subtracted. Each condition has ``--frames`` different
frames, and ``--series`` series of 64 are drawn from them (for drifting noise: consecutive frames from a random start).
Altered scanners differ from those of the calibration in one property. ``PYTHONPATH=. python bench/misfit_rates.py``
takes about an hour on one core.
"""

import argparse
import json
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mpi_fast import Reconstructor
from mpi_fast.atomic import atomic_path
from mpi_fast.calibration import Calibration
from mpi_fast.experiment import noise_profile
from mpi_fast.flags import Flag
from mpi_fast.heldout import SCANNERS, HeldOut, phantoms
from mpi_fast.inspection import Inspection
from mpi_fast.misfit import MisfitMeter, RowNoise
from mpi_fast.noise import NOISE_KINDS, complex_noise
from mpi_fast.simulation import Scanner

RESULTS = Path(__file__).parent / "results"
JSON = RESULTS / "misfit.json"
SERIES, BACKGROUND, CHUNK = 64, 16, 16
SNRS, ALTERED_SNRS = (5.0, 25.0, 45.0), (25.0,)


def altered_scanners(scanner: Scanner) -> dict[str, Scanner]:
    """The scanner of the calibration, and scanners that differ from it in one property."""
    chain = scanner.receive

    def tuned(factor: float) -> Scanner:
        return replace(scanner, receive=replace(chain, resonance=tuple(factor * f for f in chain.resonance)))

    def driven(factor: float) -> Scanner:
        return replace(scanner, drive_amplitude=tuple(factor * a for a in scanner.drive_amplitude))

    return {
        "right": scanner,
        "delay of 1 us": replace(scanner, receive=replace(chain, delay=tuple(d + 1e-6 for d in chain.delay))),
        "resonances 20 % higher": tuned(1.2),
        "resonances 20 % lower": tuned(0.8),
        "particles 27 % larger": replace(scanner, core_diameter=scanner.core_diameter * 28 / 22),
        "particles 21 % smaller": replace(scanner, core_diameter=scanner.core_diameter * 22 / 28),
        "drive 15 % stronger": driven(1.15),
        "drive 15 % weaker": driven(1 / 1.15),
        "gradient 30 % stronger": replace(scanner, gradient=tuple(1.3 * g for g in scanner.gradient)),
    }


@dataclass(frozen=True)
class Frames:
    """Rows (F, M) of one condition, the background frames (B, M) less their mean, and the images (F, N)."""

    rows: Any
    background: Any
    image: Any


def measure(
    held: HeldOut, calibration: Calibration, rec: Reconstructor, scanner: Scanner, kind: Any, snr: float, count: int
) -> Frames:
    """Measure and reconstruct frames."""
    selection, rng = calibration.selection, np.random.default_rng([7, round(snr), NOISE_KINDS.index(kind)])
    profile = np.broadcast_to(noise_profile(held.scanner), selection.shape)
    clean = phantoms(count, 5).reshape(count, -1) @ scanner.system_matrix()[selection].T
    right = phantoms(count, 5).reshape(count, -1) @ calibration.matrix.T
    typical = float(np.median(np.linalg.norm(right, axis=1)))  # keeps the weight of the matrix's own noise
    clean *= typical / np.linalg.norm(clean, axis=1, keepdims=True)
    level = typical * 10 ** (-snr / 20) / np.sqrt(calibration.num_rows)
    parts = [complex_noise((SERIES, *selection.shape), rng, kind, profile) for _ in range(-(-count // SERIES))]
    noise = np.concatenate(parts)[:count, selection]
    empty = complex_noise((BACKGROUND, *selection.shape), rng, kind, profile)[:, selection]
    level = level / np.sqrt(np.mean(np.square(np.abs(noise))))
    mean = empty.mean(axis=0)
    rows = (clean + level * (noise - mean)).astype(np.complex64)
    return Frames(rows, (level * (empty - mean)).astype(np.complex64), rec(rows).image.reshape(count, -1))


def series(frames: Frames, kind: str, count: int) -> Iterator[Any]:
    """Indices of the frames of each series."""
    rng, total = np.random.default_rng(3), len(frames.rows)
    for number in range(count):
        if kind == "drift":
            yield (number * SERIES + np.arange(SERIES)) % (total // SERIES * SERIES)
        else:
            yield rng.permutation(total)[:SERIES]


def judge(
    calibration: Calibration, meter: MisfitMeter, frames: Frames, kind: str, count: int
) -> dict[str, float | None]:
    """Shares of series and of single frames that are flagged as foreign, with and without background frames."""
    energy = np.square(np.abs(frames.background.astype(complex))).sum(axis=0)
    found: dict[str, float | None] = {}
    for name, noise in (
        ("with background", RowNoise.of_background(calibration, energy, BACKGROUND)),
        ("without", RowNoise.unknown(calibration.num_rows)),
    ):
        if noise.variance is not None:
            noise = replace(noise, variance=noise.variance * (1 + 1 / BACKGROUND))
        hits = []
        for chosen in series(frames, kind, count):
            inspection, seen = Inspection(calibration, noise, meter=meter), []
            for start in range(0, SERIES, CHUNK):
                part = chosen[start : start + CHUNK]
                flags = inspection.check_images(frames.rows[part], frames.image[part], np.zeros(len(part), np.uint8))[1]
                seen.append(flags & np.uint8(Flag.FOREIGN) > 0)
            hits.append(np.concatenate(seen))
        first = [int(hit.argmax()) + 1 for hit in hits if hit.any()]
        found[f"series, {name}"] = float(np.mean([hit.any() for hit in hits]))
        found[f"frames until found, {name}"] = float(np.median(first)) if first else None
        if noise.variance is not None:  # each frame alone
            alone = []
            for index in range(len(frames.rows)):
                part = slice(index, index + 1)
                flags = Inspection(calibration, noise, judge_images=False, meter=meter).check_images(
                    frames.rows[part], frames.image[part], np.zeros(1, np.uint8)
                )[1]
                alone.append(bool(flags[0] & Flag.FOREIGN))
            found["single frames"] = float(np.mean(alone))
    return found


def table(results: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Foreign data: false alarms and detections",
        "",
        "Share of series of 64 frames that are flagged as foreign, with 16 background frames and without; median",
        "number of frames until the first flag; share of single frames, with background frames. See",
        "`bench/misfit_rates.py`.",
        "",
        "| scanner | measured | noise | SNR dB | series, with | without | frames until, with | without | single |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in results:
        rates = (f"{100 * one[key]:.1f} %" for key in ("series, with background", "series, without"))
        until = (one[f"frames until found, {key}"] for key in ("with background", "without"))
        shown = ("" if number is None else f"{number:.0f}" for number in until)
        cells = (one["scanner"], one["measured"], one["noise"], f"{one['snr_db']:.0f}", *rates, *shown)
        lines.append(f"| {' | '.join(cells)} | {100 * one['single frames']:.1f} % |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=256, help="different frames of each condition")
    parser.add_argument("--series", type=int, default=200, help="series drawn of each condition")
    parser.add_argument("--scanners", default="ABC")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = json.loads(JSON.read_text()) if JSON.exists() else []
    results = [one for one in kept if one["scanner"] not in options.scanners]
    for held in (one for one in SCANNERS if one.name[0] in options.scanners):
        calibration = held.measure_matrix().calibrate()
        rec, meter = Reconstructor(calibration, threads=1, device="cpu", inspect=False), MisfitMeter(calibration)
        for name, scanner in altered_scanners(held.scanner).items():
            for kind in NOISE_KINDS if name == "right" else ("white",):
                for snr in SNRS if name == "right" else ALTERED_SNRS:
                    frames = measure(held, calibration, rec, scanner, kind, snr, options.frames)
                    found = judge(calibration, meter, frames, kind, options.series)
                    facts = {"scanner": held.name[0], "measured": name, "noise": kind, "snr_db": snr}
                    results.append({**facts, **found})
                    print(results[-1], flush=True)
                    write(results)


def write(results: list[dict[str, Any]]) -> None:
    """Write both files, in the order of the scanners; keeps the results of scanners that were not run again."""
    results = sorted(results, key=lambda one: str(one["scanner"]))
    with atomic_path(JSON) as path:
        path.write_text(json.dumps(results, indent=1) + "\n")
    with atomic_path(RESULTS / "misfit.md") as path:
        path.write_text(table(results))


if __name__ == "__main__":
    main()
