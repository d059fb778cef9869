"""Measure the necessary width of 95 % intervals on validation frames of held-out scanners: one factor per checkpoint.

    python bench/intervals.py [--model BUNDLE] [--write mpi_fast/models/default.pt]

In training the network learns the 95 % quantile of its errors. On scanners and phantoms unlike those of the training
its errors are larger. The factor is measured on the frames on which `mpi_fast.comparison` tunes the opponents, of
scanners A and B, within the trajectory's field of view. It is the 95 % quantile of error over half-width, which is one
for correct intervals. ``--write`` multiplies the quantiles of a checkpoint by it (their logarithms are the outputs of a
linear layer, ``tails``) and notes it in the provenance; then export it anew.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from mpi_fast.atomic import atomic_path
from mpi_fast.comparison import VALIDATION, Setup, frames, measured
from mpi_fast.reconstructor import Reconstructor

SCANNERS, SNRS_DB = ("in", "fine"), (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)
LEVEL = 0.95


def ratios(model: str, scanner: str, snr_db: float) -> NDArray[np.float32]:
    """Error over half width of every voxel within the trajectory's field of view."""
    setup = Setup(scanner)
    _, calibration = measured(setup.heldout)
    signals, truth = frames(setup, snr_db, VALIDATION)
    found = Reconstructor(calibration, model, device="cpu", threads=1)(signals)
    width = found.half_width(LEVEL)[:, setup.covered()]
    return np.asarray(np.abs(found.image - truth)[:, setup.covered()] / np.maximum(width, np.finfo(np.float32).tiny))


def widen(checkpoint: Path, factor: float) -> None:
    """Multiply the quantiles of a checkpoint's network by a factor."""
    content = torch.load(checkpoint, weights_only=True)
    content["state"]["tails.bias"] += math.log(factor)
    made = content["provenance"]
    made["interval_factor"] = round(factor * made.get("interval_factor", 1.0), 4)
    with atomic_path(checkpoint) as temporary:
        torch.save(content, temporary)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default")
    parser.add_argument("--write", type=Path, metavar="CHECKPOINT")
    arguments = parser.parse_args()
    found = []
    for scanner in SCANNERS:
        for snr_db in SNRS_DB:
            found.append(ratios(arguments.model, scanner, snr_db))
            print(f"{scanner}, {snr_db:g} dB: 95 % intervals contain {(found[-1] <= 1).mean():.1%}")
    factor = float(np.quantile(np.concatenate([one.ravel() for one in found]), LEVEL))
    print(f"95 % of all errors are at most {factor:.3f} half widths")
    if arguments.write:
        widen(arguments.write, factor)
        print(f"wrote {arguments.write}; now python -m mpi_fast.export {arguments.write}")


if __name__ == "__main__":
    main()
