"""How quality follows from time: one frame with 1 to 20 steps, 1 to 32 samples and 0 to 32 steps of consensus.

`test_tradeoff.py` measures, `gpu_report.py` writes the table and the picture. A row is a dict with ``steps``,
``samples``, ``consensus``, ``p50`` and ``p95`` in ms, ``psnr_db`` and ``psnr_error`` in dB, ``coverage_95`` from 0 to
1, ``frames`` that these were judged on, ``rounds`` that were timed, ``device`` (cuda or cpu), ``runs_on`` in words.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mpi_fast.metrics import coverage, psnr
from mpi_fast.pipelines import Pipeline, Sampling
from mpi_fast.uncertainty import half_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
GROUP = "quality and time of one frame"
DEFAULT = Sampling()
SWEEPS = {"steps": (1, 2, 3, 4, 5, 8, 12, 20), "samples": (1, 2, 4, 8, 16, 32), "consensus": (0, 4, 8, 16, 32)}
SNR_DB, LEVEL = 15.0, 0.95
INK = "0.4"


def settings() -> list[Sampling]:
    """The default, and what differs from it in one number; each once."""
    changes: list[dict[str, Any]] = [{name: value} for name, values in SWEEPS.items() for value in values]
    return list(dict.fromkeys([DEFAULT, *(replace(DEFAULT, **change) for change in changes)]))


def title(sampling: Sampling) -> str:
    return f"{sampling.steps} steps, {sampling.samples} samples, {sampling.consensus} of consensus"


def judge(
    pipeline: Pipeline, rows: NDArray[np.complex64], truth: NDArray[np.float32], inside: NDArray[np.bool_]
) -> dict[str, float]:
    """Mean PSNR with its standard error, and coverage, over frames reconstructed one at a time.

    Parameters
    ----------
    rows, truth : (F, M), (F, ny, nx)
        Selected rows of held-out frames, and what they are of.
    inside : (ny, nx)
        Voxels whose intervals count: those within the trajectory's field of view.
    """
    found = [pipeline(rows[index : index + 1]) for index in range(len(rows))]
    image, std = (np.concatenate([getattr(one, of) for one in found]).reshape(truth.shape) for of in ("image", "std"))
    each = psnr(image, truth)
    return {
        "psnr_db": float(each.mean()),
        "psnr_error": float(each.std(ddof=1) / np.sqrt(len(each))),
        "coverage_95": float(coverage(image, half_width(std, None, LEVEL), truth, inside).mean()),
        "frames": len(rows),
    }


def curve(rows: list[Row], sweep: str) -> list[Row]:
    """The rows that differ from the default in this number only, ascending."""
    others = [name for name in SWEEPS if name != sweep]
    same = [row for row in rows if all(row[name] == getattr(DEFAULT, name) for name in others)]
    return sorted(same, key=lambda row: row[sweep])


def table(rows: list[Row]) -> list[str]:
    """Lines of Markdown: a table for each number that is varied, and what it was measured on."""
    first = rows[0]
    lines = [
        f"Measured on {first['runs_on']}: time of one frame from host to host over {first['rounds']} rounds; PSNR and "
        f"coverage of 95 % intervals over {first['frames']} held-out frames of scanner A at {SNR_DB:g} dB.",
        "",
    ]
    for sweep in SWEEPS:
        fixed = ", ".join(f"{getattr(DEFAULT, name)} {name}" for name in SWEEPS if name != sweep)
        lines += [f"| {sweep} ({fixed}) | p50, ms | p95 | PSNR, dB | coverage |", "|---|---|---|---|---|"]
        for row in curve(rows, sweep):
            quality = f"{row['psnr_db']:.2f} ± {row['psnr_error']:.2f} | {100 * row['coverage_95']:.1f} %"
            lines.append(f"| {row[sweep]} | {row['p50']:.4g} | {row['p95']:.4g} | {quality} |")
        lines.append("")
    return lines


def figure(rows: list[Row]) -> "Figure":
    """PSNR and coverage over the median latency, a curve for each number that is varied."""
    from matplotlib.figure import Figure

    made = Figure(figsize=(10, 4.2), layout="constrained")
    quality, honesty = made.subplots(1, 2)
    _draw(quality, rows, "psnr_db", "mean PSNR / dB")
    _draw(honesty, rows, "coverage_95", "coverage of 95 % intervals")
    honesty.axhline(LEVEL, color=INK, linestyle=":", linewidth=1)
    quality.legend(fontsize=8)
    made.suptitle(f"One frame at {SNR_DB:g} dB on {rows[0]['runs_on']}", fontsize=10)
    return made


def _draw(cell: "Axes", rows: list[Row], merit: str, label: str) -> None:
    """One panel, every point marked with the number that is varied."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for sweep, marker in zip(SWEEPS, "osD", strict=True):
        line = curve(rows, sweep)
        cell.plot([row["p50"] for row in line], [row[merit] for row in line], marker=marker, label=sweep, alpha=0.8)
        for row in line:
            default = row[sweep] == getattr(DEFAULT, sweep)
            text = str(row[sweep]) if not default else "default" if sweep == "steps" else ""
            cell.annotate(text, (row["p50"], row[merit]), (3, 3), textcoords="offset points", fontsize=7)
    cell.set_xscale("log")
    cell.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    cell.xaxis.set_major_formatter("{x:g}")
    cell.xaxis.set_minor_formatter(NullFormatter())
    cell.set_xlabel("median latency of one frame / ms")
    cell.set_ylabel(label)
    cell.grid(alpha=0.3)
