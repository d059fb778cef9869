"""Networks trained for a few minutes, to compare what they are trained on: random scanners, or one and no other."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch

from mpi_fast.calibration import Calibration
from mpi_fast.engines.torch import TorchEngine
from mpi_fast.experiment import MeasuredMatrix
from mpi_fast.training.checkpoint import load_checkpoint
from mpi_fast.training.config import TrainingConfig
from mpi_fast.training.loop import train
from mpi_fast.training.operators import Operators, reduced_known, stack

SCANNERS, PHANTOMS = 256, 20_000


def one_scanner(matrix: MeasuredMatrix, calibration: Calibration) -> Operators:
    """A scanner as training wants it: its calibration, its true matrix, white noise."""
    truth, alike = matrix.truth[calibration.selection], np.ones(calibration.num_rows)
    return stack([reduced_known(np.random.default_rng(0), calibration, truth, alike)])


def short_training(
    minutes: float, only: Operators | None, output: Path, report: Callable[[int], None]
) -> tuple[TorchEngine, int]:
    """Train on random scanners, or on one only, for minutes of one core; the network, and the steps it took.

    The time is the processor's, so that no other program takes from one network what it leaves to another; its seconds
    are reported as they pass.
    """
    torch.set_num_threads(1)
    config = TrainingConfig(minutes=minutes, scanners=SCANNERS, phantoms=PHANTOMS)
    clock = SimpleNamespace(monotonic=time.process_time, process_time=time.process_time)
    scanners = patch("mpi_fast.training.recipes.make_operators", return_value=only) if only else nullcontext()
    # Training turns its scanners about; one that is known has one orientation.
    turns = patch("mpi_fast.training.data._turned", lambda images, turns: images) if only else nullcontext()
    with patch("mpi_fast.training.loop.time", clock), scanners, turns:
        train(config, output, device="cpu", report=lambda progress: report(int(progress.seconds)))
    checkpoint = load_checkpoint(output)
    return TorchEngine(checkpoint), int(checkpoint.provenance["steps"])
