"""The effect of each part of the reconstruction: one change at a time, on held-out scanners.

    python bench/ablations.py [--frames 28] [--json FILE] [--markdown FILE]

The measurements use scanner A of `mpi_fast.heldout`, unless stated otherwise, and test phantoms. Noise is white.
Coverage is the share of true voxel values, within the trajectory's field of view, that lie in 95 % intervals.
Evaluations are those of the network for each frame. Changes without an option in the product are patched in for one
call. One thread computes. The effect of parts of the network itself needs training, see `short_training`.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from by_torch import images, trained
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import nn

from mpi_fast import metrics
from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.comparison import Setup, frames, interval, measured
from mpi_fast.console import progress_bar, write_json
from mpi_fast.limits import EVALUATIONS
from mpi_fast.machine import machine
from mpi_fast.methods.base import Estimate, Method
from mpi_fast.methods.sampled import SampleMean
from mpi_fast.pipelines import Sampling
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.reduction import ReducedFrames
from mpi_fast.training.network import PosteriorNetwork
from mpi_fast.uncertainty import half_width

SNRS = (5.0, 15.0, 25.0, 35.0)
Change = Callable[[Setup, float], AbstractContextManager[Any]]
Merits = dict[str, NDArray[np.float64]]
NOTE = """\
Means over {frames} frames for each SNR: PSNR in dB / SSIM / coverage of 95 % intervals. Evaluations: those of the
network for each frame. The default and the best PSNR of each column are bold. \\*: the mean PSNR differs from that of
the default, by a bootstrap over frames (95 %). The network was trained for {steps} steps. {processor},
mpi-fast {mpi-fast}, ONNX Runtime {onnxruntime}, NumPy {numpy}, torch {torch}; seed of phantoms, noise and
samplers {seed}. Made by `{command}`."""


def default_reconstructor(calibration: Calibration, evaluations: int = EVALUATIONS) -> Reconstructor:
    """The default reconstruction, with one thread."""
    return Reconstructor(calibration, device="cpu", threads=1, evaluations=evaluations, inspect=False)


@dataclass(frozen=True)
class Variant:
    """A row of a table: the reconstruction, and what else is changed while it runs."""

    name: str
    build: Callable[[Calibration], Method] = default_reconstructor
    change: Change = lambda setup, snr: nullcontext()
    evaluations: int = EVALUATIONS
    default: bool = False


@dataclass(frozen=True)
class Group:
    """A table: title, caption, rows, one of them the default, and one of the `SCANNERS`."""

    title: str
    caption: str
    variants: tuple[Variant, ...]
    scanner: str = "in"


# -- changes ----------------------------------------------------------------------------------------------------------


def without_consistency(setup: Setup, snr: float) -> AbstractContextManager[Any]:
    """Images as the network computes them, without the correction by signals."""
    return patch("mpi_fast.reconstructor.consistent", lambda calibration, rows, image, std: image)


def with_normal_intervals(calibration: Calibration) -> Method:
    """Intervals for normal errors, instead of the quantiles of the frame."""

    def reconstruct(signals: NDArray[Any]) -> Estimate:
        found = default_reconstructor(calibration)(signals)
        return Estimate(found.image, found.std)

    return reconstruct


class Cut(nn.Module):
    """A network that returns the image of one of its blocks."""

    def __init__(self, network: PosteriorNetwork, blocks: int) -> None:
        super().__init__()
        self.network, self.blocks = network, blocks

    def forward(self, *arguments: Any) -> Any:
        """As `PosteriorNetwork`."""
        found = self.network(*arguments)
        return found._replace(image=[*found.earlier, found.image][self.blocks - 1])


def after_block(blocks: int, calibration: Calibration) -> Method:
    """The image after this number of blocks, computed by torch, without std."""
    return lambda signals: Estimate(images(Cut(trained(), blocks), calibration, signals))


def known_noise(setup: Setup, snr: float) -> AbstractContextManager[Any]:
    """The true noise level of each frame, instead of the estimate from its residual."""
    levels, reduce = cycle(true_noise(setup, snr)), Calibration.reduce  # images are checked with the same frames again

    def told(calibration: Calibration, rows: NDArray[np.complex64]) -> ReducedFrames:
        return replace(reduce(calibration, rows), noise=np.array([next(levels) for _ in rows], np.float32))

    return patch.object(Calibration, "reduce", told)


def true_noise(setup: Setup, snr: float) -> NDArray[np.float64]:
    """Root-mean-square of the whitened noise of each frame, (F,), which `Calibration.reduce` estimates."""
    matrix, calibration = measured(setup.heldout)
    signals, truth = frames(setup, snr)
    clean = np.tensordot(truth.reshape(len(truth), -1), matrix.truth, axes=(1, 2))
    noise = (signals - clean)[:, calibration.selection] * calibration.weights
    return np.asarray(np.linalg.norm(noise, axis=1) / np.sqrt(2 * calibration.num_rows))


# -- tables -----------------------------------------------------------------------------------------------------------


def groups() -> list[Group]:
    """All tables."""
    last = trained().config.blocks
    halves = [count for count in (1, 2, 4, 8, 12, 16, 20, 24) if count < last]
    blocks = tuple(Variant(f"{count} of {last}", partial(after_block, count), evaluations=1) for count in halves)
    others = tuple(
        Variant(f"{count}", partial(default_reconstructor, evaluations=count), evaluations=count) for count in (1, 3, 4)
    )
    times = (*others[:1], Variant(f"{EVALUATIONS}", default=True), *others[1:])
    each = Sampling.steps + 1  # the start costs one
    samples = tuple(
        Variant(f"mean of {count} samples", partial(SampleMean, samples=count, threads=1), evaluations=count * each)
        for count in (1, 8, 32)
    )
    heard = (
        Variant("corrected if they do not explain their signals", default=True),
        Variant("never corrected", change=without_consistency),
    )
    spread = (Variant("the frame's own quantiles", default=True), Variant("of normal errors", with_normal_intervals))
    estimate = (Variant("estimated from the frame", default=True), Variant("known", change=known_noise))
    seen = "Correction of images that leave more of their signals unexplained than noise can; see `consistency`."
    wide = "The width of intervals relative to std; the image is the same."
    outside = "The same on scanner C, which is outside the range of the training."
    told = (
        "Known: the root-mean-square of the frame's noise alone; the estimate also contains the errors of the "
        "calibration."
    )
    after = (
        "The image that a block of the first evaluation passes to the next; the images of all blocks are trained. "
        "Computed by torch, without the correction by signals."
    )
    own = "Each evaluation except the first takes the image of the previous one as an input; see `refinement`."
    drawn = (
        f"Drawn by DPM-Solver++ in {Sampling.steps} steps; coverage for normal errors with their standard deviation."
    )
    return [
        Group("Blocks", after, (*blocks, Variant(f"all {last}", default=True))),
        Group("Evaluations", own, times),
        Group("Image and samples", drawn, (Variant("the image", default=True), *samples)),
        Group("Images and signals", seen, heard),
        Group("Images and signals, outside training", outside, heard, "out"),
        Group("Intervals", wide, spread),
        Group("Intervals, outside training", outside, spread, "out"),
        Group("Noise level", told, estimate),
    ]


def assess(variant: Variant, setup: Setup, snr: float) -> Merits:
    """Figures of merit of every frame; the coverage only for methods that return an uncertainty."""
    signals, truth = frames(setup, snr)
    reconstruct = variant.build(measured(setup.heldout)[1])
    with variant.change(setup, snr):
        out = reconstruct(signals)
    found = {"psnr": metrics.psnr(out.image, truth), "ssim": metrics.ssim(out.image, truth)}
    if out.std is not None:
        width = half_width(out.std, out.quantiles, 0.95)
        found["coverage"] = metrics.coverage(out.image, width, truth, setup.covered())
    return found


def measure(group: Group, setup: Setup, report: Callable[[], None]) -> list[dict[str, Any]]:
    """Means of every row at every SNR, and its gain of PSNR over the default, with a 95 % interval."""
    found: list[dict[float, Merits]] = [{} for _ in group.variants]
    for variant, merits in zip(group.variants, found, strict=True):
        for snr in SNRS:
            merits[snr] = assess(variant, setup, snr)
            report()
    ordinary = next(merits for variant, merits in zip(group.variants, found, strict=True) if variant.default)
    rows = []
    for variant, merits in zip(group.variants, found, strict=True):
        cells = {}
        for snr, one in merits.items():
            gain = one["psnr"] - ordinary[snr]["psnr"]
            means = {name: float(values.mean()) for name, values in one.items()}
            cells[f"{snr:g} dB"] = {**means, "psnr_gain": float(gain.mean()), "psnr_gain_interval": interval(gain)}
        about = {"name": variant.name, "default": variant.default, "evaluations": variant.evaluations}
        rows.append({**about, "results": cells})
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
            held = f" / {100 * one['coverage']:.0f} %" if "coverage" in one else ""
            cells.append(f"{bold}{one['psnr']:.2f}{bold}{star} / {one['ssim']:.3f}{held}")
        name = f"**{row['name']}, the default**" if row["default"] else row["name"]
        lines.append(f"| {name} | {row['evaluations']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(about: Mapping[str, Any], tables: list[dict[str, Any]]) -> str:
    """All tables as one Markdown file."""
    parts = ["# The effect of each part", " ".join(NOTE.format(**about).split())]
    for one in tables:
        parts += [f"## {one['title']}", one["caption"], table(one["rows"])]
    return "\n\n".join(filter(None, parts)) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=28)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    steps = Bundle.open().manifest["provenance"]["steps"]
    about = {"command": " ".join(["python", *sys.argv]), "frames": options.frames, "seed": Setup().seed, "steps": steps}
    about |= machine()
    tables = []
    with threadpool_limits(limits=1), progress_bar("rows x SNRs") as bar:
        for group in groups():
            task = bar.add_task(group.title, total=len(SNRS) * len(group.variants))
            setup = Setup(group.scanner, phantoms=options.frames)
            rows = measure(group, setup, partial(bar.advance, task))
            tables.append({"title": group.title, "caption": group.caption, "scanner": group.scanner, "rows": rows})
    text = markdown(about, tables)
    print(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.json:
        write_json(options.json, {**about, "tables": tables})


if __name__ == "__main__":
    main()
