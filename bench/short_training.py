"""Networks of several kinds, trained under equal conditions for some minutes, to measure the effect of each part.

    python bench/short_training.py [--minutes 10] [--device auto] [--sizes 11,16 19,16] [--kinds usual ...]
                                   [--json FILE] [--markdown FILE]

A size is blocks and width, without corrections at half resolution. A kind differs from the usual network in one thing,
see `KINDS`. All are trained from scratch for the same time on the same device, so a small network takes more steps, as
it would in a long run. PSNR is the mean over the validation frames of `comparison`, which are not used for final tests:
scanners A, B and C on 19 x 19 voxels, and A on another grid.

These trainings are much shorter than that of the bundled network, and one run does not show the random variation, so
differences of some tenths of a dB are not significant.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from by_torch import CPU, images
from rich.console import Console
from torch import Tensor

from mpi_fast.comparison import SCANNERS, VALIDATION, Setup, frames, measured
from mpi_fast.console import write_json
from mpi_fast.export.frame import Frame
from mpi_fast.export.graph_cost import count_flops
from mpi_fast.grids import shown
from mpi_fast.metrics import psnr
from mpi_fast.training.checkpoint import load_trained
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.loop import train
from mpi_fast.training.mixture import Mixture, Setting, make_settings, posterior_batches
from mpi_fast.training.network import Corrector, PosteriorConfig, PosteriorNetwork

SIZES = (11, 16), (28, 16), (13, 24), (7, 32)
SNRS = (5.0, 15.0, 25.0, 35.0)
RANK = 150  # of the calibration for which operations are counted, on 19 x 19 voxels
OTHER_GRID = 26, 13
USUAL = PosteriorConfig(19, 16)  # of every kind; learns in minutes what the bundled size learns in hours


def without_passed_features() -> AbstractContextManager[Any]:
    """Pass no features between blocks: each block gets only the image of the previous one."""
    correct = Corrector.forward

    def forward_without_features(
        corrector: Corrector, injected: Tensor, features: Tensor | None, modulations: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        return correct(corrector, injected, None, modulations)

    return patch.object(Corrector, "forward", forward_without_features)


def standard_grid_only(settings: list[Setting]) -> list[Setting]:
    """Only the scanners of 19 x 19 voxels."""
    return settings[:1]


@dataclass(frozen=True)
class Variant:
    """A network, a change during its training and evaluation, and the settings of its training."""

    name: str
    config: PosteriorConfig = USUAL
    change: Callable[[], AbstractContextManager[Any]] = nullcontext
    learned_from: Callable[[list[Setting]], list[Setting]] = field(default=lambda settings: settings)


KINDS = {
    "usual": Variant("as usual"),
    "coarse": Variant("every third block at half resolution, too", replace(USUAL, coarse_every=3)),
    "half-blocks": Variant("half of the blocks", replace(USUAL, blocks=USUAL.blocks // 2)),
    "no-features": Variant("no features handed on", change=without_passed_features),
    "one-grid": Variant("trained on 19 x 19 voxels alone", learned_from=standard_grid_only),
}


def operations(network: PosteriorNetwork) -> int:
    """Floating-point operations of one frame."""
    shapes = (1, RANK), (1,), (RANK,), (1, 19, 19, RANK), (1, 1, 19, 19), (1,)
    return count_flops(Frame(network).cpu(), [torch.ones(shape) for shape in shapes])


def quality(network: PosteriorNetwork, setup: Setup, snr: float, device: torch.device) -> float:
    """Mean PSNR in dB on the validation frames."""
    signals, truth = frames(setup, snr, VALIDATION)
    return float(psnr(images(network, measured(setup.heldout)[1], signals, device), truth).mean())


def assess(network: PosteriorNetwork, device: torch.device, phantoms: int) -> dict[str, list[float]]:
    """PSNR for each scanner, at all of `SNRS`."""
    setups = {name: Setup(scanner=name, phantoms=phantoms) for name in SCANNERS}
    setups[shown(OTHER_GRID)] = Setup(phantoms=phantoms, grid=OTHER_GRID)
    return {name: [quality(network, setup, snr, device) for snr in SNRS] for name, setup in setups.items()}


def row_of(variant: Variant, settings: list[Setting], minutes: float, device: torch.device, phantoms: int) -> Any:
    """Train a variant; returns its size, operations, steps and PSNR, and the machine."""
    config = TrainingConfig(minutes=minutes, network=variant.config)
    with tempfile.TemporaryDirectory() as folder, variant.change():
        output = Path(folder) / "model.pt"
        batches = posterior_batches(variant.learned_from(settings), 0, device)
        train(config, output, device=str(device), batches=batches)
        trained = load_trained(output)
        network = trained.network
        assert isinstance(network, PosteriorNetwork)
        return {
            "name": variant.name,
            "network": variant.config.to_dict(),
            "parameters": sum(value.numel() for value in network.parameters()),
            "flops": operations(network),
            "steps": trained.provenance["steps"],
            "psnr": assess(network, device, phantoms),
            "hardware": trained.provenance["hardware"],
        }


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as markdown."""
    head = f"| network | weights | MFLOP | steps | A: 5 / 15 / 25 / 35 dB | B | C | A, {shown(OTHER_GRID)} |"
    lines = [
        f"| {row['name']} | {row['parameters']} | {row['flops'] / 1e6:.0f} | {row['steps']} | "
        + " | ".join(" / ".join(f"{value:.1f}" for value in values) for values in row["psnr"].values())
        + " |"
        for row in rows
    ]
    return "\n".join([head, "|---" * 8 + "|", *lines])


def main() -> None:
    """Train and evaluate all networks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="duration of each training")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--sizes", nargs="*", default=[",".join(map(str, size)) for size in SIZES])
    parser.add_argument("--kinds", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--processes", type=int, default=2, help="number of processes that simulate scanners")
    parser.add_argument("--phantoms", type=int, default=63)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    device = torch.device("cuda" if given.device == "auto" and torch.cuda.is_available() else given.device)
    if given.device == "auto" and device.type != "cuda":
        device = CPU
    sizes = [PosteriorConfig(*map(int, text.split(","))) for text in given.sizes]
    named = [Variant(f"{size.blocks} blocks, {size.width} wide", size) for size in sizes]
    settings, console, rows = make_settings(Mixture(), 0, given.processes), Console(stderr=True), []
    for variant in [*named, *(KINDS[kind] for kind in given.kinds)]:
        rows.append(row_of(variant, settings, given.minutes, device, given.phantoms))
        console.print(json.dumps(rows[-1]))
        if given.json:
            write_json(given.json, {"minutes": given.minutes, "networks": rows})
        if given.markdown:
            given.markdown.write_text(table(rows) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
