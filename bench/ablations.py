"""What each default is worth: the reconstruction with one thing changed at a time, on a held-out scanner.

    python bench/ablations.py [--frames 28] [--ablation-minutes 6] [--json FILE] [--markdown FILE]

Scanner A of `mpi_fast.heldout` and test phantoms; the defaults were chosen on other phantoms of the same families.
Noise is white. Coverage is the share of true voxel values, within the trajectory's field of view, that lie in
``image +- 1.96 std``. Evaluations are images that the denoiser is given for each frame,
``samples x (steps of the sampler + 1) + steps of consensus``; the encoder is not counted.

What the product has no option for is put in its place here, for the time of one call. One thread computes.
``--ablation-minutes 0`` trains no networks, and needs no torch.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mpi_fast import metrics
from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.comparison import SCANNERS, Setup, frames, interval
from mpi_fast.consensus import DAMPING, DOUBTFUL, FIRST, LAST, NOISY, SHARE, WIDENING, falling, settle, spread_about
from mpi_fast.console import progress_bar, write_json
from mpi_fast.engines import Engine
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.experiment import MeasuredMatrix
from mpi_fast.machine import machine
from mpi_fast.pipelines import Sampling
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.reduction import ReducedFrames
from mpi_fast.samplers import nfe
from mpi_fast.symmetry import symmetries

SNRS = (5.0, 15.0, 25.0, 35.0)
Change = Callable[[Setup, float], AbstractContextManager[Any]]
Array = NDArray[Any]
Merits = dict[str, NDArray[np.float64]]
NOTE = """\
Means over {frames} frames for each SNR: PSNR in dB / SSIM / coverage of 95 % intervals. Evaluations: images that the
network denoises for each frame. In bold the default, and the best PSNR of each column. \\*: the mean PSNR differs from
the default's, by a bootstrap over frames (95 %). {processor}, mpi-fast {mpi-fast}, ONNX Runtime {onnxruntime},
NumPy {numpy}, torch {torch}; seed of phantoms and noise {seed}, of the sampler {seed}. Made by `{command}`."""


@dataclass(frozen=True)
class Variant:
    """A row: options of `Reconstructor`, what else is changed while it runs, and a network, unless the bundled."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    change: Change = lambda setup, snr: nullcontext()
    engine: Engine | None = None
    default: bool = False


@dataclass(frozen=True)
class Group:
    """A table: title, what must be known to read it, rows, one of them the default, and one of the `SCANNERS`."""

    title: str
    caption: str
    variants: tuple[Variant, ...]
    scanner: str = "in"


@lru_cache
def scanner(name: str) -> tuple[MeasuredMatrix, Calibration]:
    """A held-out scanner's matrix and calibration, the same as behind `comparison.frames`."""
    matrix = SCANNERS[name].measure_matrix()
    return matrix, matrix.calibrate()


def fixed_level(level: float) -> Change:
    """Consensus at one noise level for all frames, in place of each frame's own."""
    return lambda setup, snr: patch(
        "mpi_fast.consensus.level_of", lambda likelihood: np.full(len(likelihood.y), level, np.float32)
    )


def consensus_with(**names: Any) -> Change:
    """Consensus with other values of the names of its module."""
    return lambda setup, snr: patch.multiple("mpi_fast.consensus", **names)


def seen_in(*numbers: int) -> Change:
    """Consensus in these of the grid's symmetries only."""
    return consensus_with(symmetries=lambda grid: symmetries(grid)[[*numbers]])


def plain_deviation(setup: Setup, snr: float) -> AbstractContextManager[Any]:
    """As std the samples' deviation from the image, and nothing else."""

    def plain(samples: Array, agreed: Array, share: Array, width: Array) -> tuple[Array, Array]:
        image, _ = settle(samples, agreed, share, width)
        return image, spread_about(image, samples)

    return patch("mpi_fast.pipelines.steps.settle", plain)


def multiplied_by_ratio_to(power: int) -> Callable[[int], tuple[NDArray[np.float32], float]]:
    """Levels that fall as by default, and another factor of m."""
    return lambda steps: (falling(steps)[0], falling(steps)[1] ** power)


def known_noise(setup: Setup, snr: float) -> AbstractContextManager[Any]:
    """The noise level that each frame really has, in place of the estimate from its residual."""
    levels, reduce = cycle(true_noise(setup, snr)), Calibration.reduce  # images are checked with the same frames again

    def told(calibration: Calibration, rows: NDArray[np.complex64]) -> ReducedFrames:
        return replace(reduce(calibration, rows), noise=np.array([next(levels) for _ in rows], np.float32))

    return patch.object(Calibration, "reduce", told)


def true_noise(setup: Setup, snr: float) -> NDArray[np.float64]:
    """Root-mean-square of the whitened noise of each frame, (F,): what `Calibration.reduce` estimates."""
    matrix, calibration = scanner(setup.scanner)
    signals, truth = frames(setup, snr)
    clean = np.tensordot(truth.reshape(len(truth), -1), matrix.truth, axes=(1, 2))
    noise = (signals - clean)[:, calibration.selection] * calibration.weights
    return np.asarray(np.linalg.norm(noise, axis=1) / np.sqrt(2 * calibration.num_rows))


def groups() -> list[Group]:
    """All tables that need no training."""
    usual = Sampling()

    def counts(option: str, *numbers: int) -> tuple[Variant, ...]:
        return tuple(Variant(str(n), {option: n}, default=n == getattr(usual, option)) for n in numbers)

    guidance = tuple(
        Variant(kind + suffix, {"guidance": kind, "consensus": count}, default=not suffix and kind == usual.guidance)
        for suffix, count in (("", usual.consensus), (", no consensus", 0))
        for kind in ("proximal", "gradient", "none")
    )
    alone = tuple(
        replace(one, options={**one.options, "consensus": 0}, default=one.name == str(usual.steps))
        for one in counts("steps", 1, 2, 4, 8, 20)
    )
    own = Variant("the frame's own, `consensus.level_of`", default=True)
    fixed = tuple(Variant(f"{level:g} for all", change=fixed_level(level)) for level in (0.06, 0.1, 0.2, 0.3, 0.5))
    path = (
        Variant(f"from {FIRST:g} to {LAST:.2g}, eight symmetries in turn", default=True),
        Variant("the image as it is", change=seen_in(0)),
        Variant("every other step upside down", change=seen_in(0, 3)),
        Variant("four symmetries, none transposed", change=seen_in(0, 1, 2, 3)),
        Variant("1 throughout", change=consensus_with(FIRST=1.0, LAST=1.0)),
        Variant(f"{LAST:.2g} throughout", change=consensus_with(FIRST=LAST)),
        Variant("m as it is", change=consensus_with(falling=multiplied_by_ratio_to(0))),
        Variant("m by the ratio's square", change=consensus_with(falling=multiplied_by_ratio_to(2))),
    )
    doubt, noise = f"(level - {DOUBTFUL:g})", f"(level - {NOISY:g})"
    noisy = (
        Variant("`consensus`", default=True),
        *(Variant(f"share: {slope:g} {doubt}", change=consensus_with(SHARE=slope)) for slope in (0, 1.6)),
        *(Variant(f"widening: 1 + {slope:g} {doubt}", change=consensus_with(WIDENING=slope)) for slope in (0, 3.2)),
        *(Variant(f"damping: 1 - {slope:g} {noise}", change=consensus_with(DAMPING=slope)) for slope in (0, 4)),
    )
    uncertainty = (
        Variant("`consensus.settle`", default=True),
        Variant("samples' deviation", change=plain_deviation),
    )
    estimate = (Variant("estimated from the frame", default=True), Variant("known", change=known_noise))
    seen = "What is done to the network's output at each step; its input holds the signals in each of these rows."
    way = "The denoiser's noise levels, relative to the frame's; what m is multiplied by: see `consensus`."
    defaults = (
        f"By default share {SHARE:g} {doubt}, widening 1 + {WIDENING:g} {doubt}, damping 1 - {DAMPING:g} {noise}."
    )
    level = (
        "About which the denoiser's falls; widening and damping follow, the mean's share and std stay the frame's own."
    )
    told = "Known: the root-mean-square of the frame's noise alone; the estimate holds the calibration's errors, too."
    return [
        Group("Guidance", seen, guidance),
        Group("Steps of the sampler", "", counts("steps", 1, 2, 3, 4, 5, 8, 20, 50)),
        Group("Steps of the sampler, no consensus", "The mean of the samples, from which consensus starts.", alone),
        Group("Samples", "", counts("samples", 1, 2, 4, 8, 16, 32)),
        Group("Steps of consensus", "", counts("consensus", 0, 4, 8, 16, 32)),
        Group("Level of consensus", level, (own, *fixed)),
        Group("Path of the steps of consensus", way, path),
        Group("Where signals are noisy", defaults, noisy),
        Group("Uncertainty", "What std is made of; the image is the same.", uncertainty),
        Group("Uncertainty, outside training", "The same on scanner C.", uncertainty, "out"),
        Group("Noise level", told, estimate),
    ]


def networks(minutes: float, folder: Path, report: Callable[[int, int], None]) -> list[Group]:
    """A network for every scanner beside one for scanner A, on A and on another; reports which one, and its seconds."""
    import short_training as training

    variants: list[Variant] = []
    for index, (name, only) in enumerate((("universal", None), ("for A alone", training.one_scanner(*scanner("in"))))):
        output, told = folder / f"{index}.pt", partial(report, index)
        engine, steps = training.short_training(minutes, only, output, told)
        one = Variant(f"{name}, {steps} steps", engine=engine, default=only is None)
        alone = replace(one, name=f"{one.name}; no consensus", options={"consensus": 0}, default=False)
        variants += [one, alone]
    rows = (*variants, Variant("universal, the bundled one"))
    caption = (
        f"A universal network is the default. Equal training time: both were trained for {minutes:g} minutes of one "
        f"core, a small part of the bundled network's, alike but for the scanners: {training.SCANNERS} random ones, "
        "turned about, or A alone, as it is, with its true matrix and the very calibration that reconstructs."
    )
    unseen = "The same networks on a scanner that none has seen."
    return [Group("Network, on scanner A", caption, rows), Group("Network, on scanner B", unseen, rows, "fine")]


def evaluations(options: Mapping[str, Any]) -> int:
    """Images that the denoiser is given for each frame."""
    sampling = Sampling(**options)
    return sampling.samples * (nfe(sampling.sampler, sampling.steps) + 1) + sampling.consensus


def assess(variant: Variant, setup: Setup, snr: float, bundled: Engine) -> Merits:
    """Figures of merit of every frame."""
    signals, truth = frames(setup, snr)
    engine = variant.engine or bundled
    reconstruct = Reconstructor(
        scanner(setup.scanner)[1], device="cpu", engine=engine, inspect=False, **variant.options
    )
    with variant.change(setup, snr):
        out = reconstruct(signals)
    held = metrics.coverage(out.image, out.half_width(0.95), truth, setup.covered())
    return {"psnr": metrics.psnr(out.image, truth), "ssim": metrics.ssim(out.image, truth), "coverage": held}


def measure(group: Group, setup: Setup, bundled: Engine, report: Callable[[], None]) -> list[dict[str, Any]]:
    """Means of every row at every SNR, and how much PSNR it gains over the default, with a 95 % interval."""
    found: list[dict[float, Merits]] = [{} for _ in group.variants]
    for variant, merits in zip(group.variants, found, strict=True):
        for snr in SNRS:
            merits[snr] = assess(variant, setup, snr, bundled)
            report()
    usual = next(merits for variant, merits in zip(group.variants, found, strict=True) if variant.default)
    rows = []
    for variant, merits in zip(group.variants, found, strict=True):
        cells = {}
        for snr, one in merits.items():
            gain = one["psnr"] - usual[snr]["psnr"]
            means = {name: float(values.mean()) for name, values in one.items()}
            cells[f"{snr:g} dB"] = {**means, "psnr_gain": float(gain.mean()), "psnr_gain_interval": interval(gain)}
        cost = evaluations(variant.options)
        rows.append({"name": variant.name, "default": variant.default, "evaluations": cost, "results": cells})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as Markdown."""
    snrs = list(rows[0]["results"])
    best = {snr: max(row["results"][snr]["psnr"] for row in rows) for snr in snrs}
    lines = [f"| | evaluations | {' | '.join(snrs)} |", "|---" * (2 + len(snrs)) + "|"]
    for row in rows:
        cells = []
        for snr, one in row["results"].items():
            low, high = one["psnr_gain_interval"]
            bold, star = "**" * (one["psnr"] == best[snr]), "\\*" * (low > 0 or high < 0)
            cells.append(f"{bold}{one['psnr']:.2f}{bold}{star} / {one['ssim']:.3f} / {100 * one['coverage']:.0f} %")
        name = f"**{row['name']}, the default**" if row["default"] else row["name"]
        lines.append(f"| {name} | {row['evaluations']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(about: Mapping[str, Any], tables: list[dict[str, Any]]) -> str:
    """The whole file."""
    parts = ["# What each default is worth", " ".join(NOTE.format(**about).split())]
    for one in tables:
        parts += [f"## {one['title']}", one["caption"], table(one["rows"])]
    return "\n\n".join(filter(None, parts)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=28)
    parser.add_argument("--ablation-minutes", type=float, default=6.0, help="to train each of two networks")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    about = {"command": " ".join(["python", *sys.argv]), "frames": options.frames, "seed": Setup().seed, **machine()}
    tables, bundled = [], OnnxEngine(Bundle.open(), threads=1)
    with threadpool_limits(limits=1), progress_bar("rows x SNRs") as bar, tempfile.TemporaryDirectory() as folder:
        todo = groups()
        if minutes := options.ablation_minutes:
            tasks = [bar.add_task(f"training network {n}, seconds", total=int(60 * minutes)) for n in (1, 2)]
            todo += networks(minutes, Path(folder), lambda n, seconds: bar.update(tasks[n], completed=seconds))
        for group in todo:
            task = bar.add_task(group.title, total=len(SNRS) * len(group.variants))
            setup = Setup(group.scanner, phantoms=options.frames)
            rows = measure(group, setup, bundled, partial(bar.advance, task))
            tables.append({"title": group.title, "caption": group.caption, "scanner": group.scanner, "rows": rows})
    text = markdown(about, tables)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        write_json(options.json, {**about, "tables": tables})


if __name__ == "__main__":
    main()
