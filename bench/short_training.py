"""Quality of the posterior network against its operations: several sizes, trained alike, on validation frames.

    python bench/sizes.py [--minutes 10] [--device auto] [--sizes 11,16,48 19,16,48] [--json FILE] [--markdown FILE]

A size is blocks, width and inner width; every other block corrects at half resolution. All are trained on the same
scanners and phantoms, for the same time on the same device, so a small network takes more steps, as it would in a long
run. PSNR is the mean over the validation frames of `comparison`, scanners A, B and C, which nothing is tested on; SNR
and PSNR as there.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from mpi_fast.comparison import SCANNERS, VALIDATION, Setup, frames, measured
from mpi_fast.console import write_json
from mpi_fast.export.posterior import Frame
from mpi_fast.export.statistics import count_flops
from mpi_fast.metrics import psnr
from mpi_fast.training.checkpoint import load_trained
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.loop import train
from mpi_fast.training.mixture import Mixture, make_settings, posterior_batches
from mpi_fast.training.posterior import PosteriorConfig, PosteriorNetwork

SIZES = ((11, 16, 48), (19, 16, 32), (19, 16, 48), (13, 24, 48), (27, 16, 48), (19, 32, 64))
SNRS = (5.0, 15.0, 25.0, 35.0)
RANK = 150  # of the calibration for which operations are counted, on 19 x 19 voxels


def operations(network: PosteriorNetwork) -> int:
    """Floating-point operations of one frame."""
    shapes = (1, RANK), (1,), (RANK,), (1, 19, 19, RANK), (1, 1, 19, 19), (1,)
    return count_flops(Frame(network).cpu(), [torch.ones(shape) for shape in shapes])


def quality(network: PosteriorNetwork, setup: Setup, snr: float, device: torch.device) -> float:
    """Mean PSNR in dB on the validation frames."""
    calibration = measured(setup.heldout)[1]
    signals, truth = frames(setup, snr, VALIDATION)
    reduced = calibration.reduce(calibration.rows(signals))
    basis = calibration.basis.reshape(1, *calibration.grid, calibration.rank)
    absent = np.zeros((len(truth), 1, *calibration.grid), np.float32), np.zeros(len(truth), np.float32)
    arrays = reduced.y, reduced.noise, calibration.singular_values, basis, *absent
    inputs = [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]
    with torch.inference_mode():
        image, *_ = Frame(network).to(device)(*inputs)
    return float(psnr(image[:, 0].cpu().numpy(), truth).mean())


def assess(network: PosteriorNetwork, device: torch.device, phantoms: int) -> dict[str, list[float]]:
    """PSNR by scanner, at all of `SNRS`."""
    setups = {name: Setup(scanner=name, phantoms=phantoms) for name in SCANNERS}
    return {name: [quality(network, setup, snr, device) for snr in SNRS] for name, setup in setups.items()}


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as markdown, by operations."""
    head = "| blocks, width, inner | weights | MFLOP | steps | A: 5 / 15 / 25 / 35 dB | B | C |"
    lines = [
        f"| {', '.join(map(str, row['size']))} | {row['parameters']} | {row['flops'] / 1e6:.0f} | {row['steps']} | "
        + " | ".join(" / ".join(f"{value:.1f}" for value in row["psnr"][name]) for name in SCANNERS)
        + " |"
        for row in sorted(rows, key=lambda row: row["flops"])
    ]
    return "\n".join([head, "|---|---|---|---|---|---|---|", *lines])


def main() -> None:
    """Train, assess, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, each")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--sizes", nargs="+", default=[",".join(map(str, size)) for size in SIZES])
    parser.add_argument("--processes", type=int, default=2, help="that simulate scanners")
    parser.add_argument("--phantoms", type=int, default=63)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    device = torch.device("cuda" if given.device == "auto" and torch.cuda.is_available() else given.device)
    if given.device == "auto" and device.type != "cuda":
        device = torch.device("cpu")
    console, rows = Console(stderr=True), []
    settings = make_settings(Mixture(), 0, given.processes)
    for size in (tuple(int(one) for one in text.split(",")) for text in given.sizes):
        config = TrainingConfig(minutes=given.minutes, network=PosteriorConfig(*size))
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder) / "model.pt"
            train(config, output, device=str(device), batches=posterior_batches(settings, 0, device))
            trained = load_trained(output)
        network = trained.network
        assert isinstance(network, PosteriorNetwork)
        row = {
            "size": size,
            "parameters": sum(value.numel() for value in network.parameters()),
            "flops": operations(network),
            "steps": trained.provenance["steps"],
            "psnr": assess(network, device, given.phantoms),
        }
        rows.append(row)
        console.print(json.dumps(row))
    print(table(rows))
    if given.json:
        write_json(given.json, {"hardware": trained.provenance["hardware"], "minutes": given.minutes, "sizes": rows})
    if given.markdown:
        given.markdown.write_text(table(rows) + "\n")


if __name__ == "__main__":
    main()
