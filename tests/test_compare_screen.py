"""Tables of `mpi-fast compare` on a narrow screen."""

import io

import numpy as np
from rich.console import Console

from mpi_fast.cli.compare import _coverage, _gains, _table
from mpi_fast.comparison import Duel, Outcome
from mpi_fast.methods import DEFAULT

SNRS = (5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 35.0)


def test_all_methods_at_seven_snrs_fit_into_80_columns_with_every_word_and_number_whole():
    outcomes = {}
    for name in DEFAULT:
        for snr in SNRS:
            merits = {"psnr": np.full(3, 21.234), "ssim": np.full(3, 0.98765)}
            if name in ("posterior", "plug-and-play"):
                merits |= {f"coverage_{level}": np.full(3, level / 100) for level in (50, 80, 95)}
            outcomes[name, snr] = Outcome(name, snr, np.zeros((3, 19, 19), np.float32), merits, None, 123.4)
    duels = [Duel(snr, "posterior", "plug-and-play", -0.0123, -0.1234, 0.1234) for snr in SNRS]
    screen = Console(file=io.StringIO(), width=80)
    for table in (
        _table(outcomes, "psnr", 1),
        _table(outcomes, "ssim", 3),
        _gains(duels, "ssim", 3),
        _coverage(outcomes),
    ):
        screen.print(table)
    shown = screen.file.getvalue()
    assert "…" not in shown
    words = shown.split()
    assert words.count("*0.988") == len(DEFAULT) * len(SNRS)
    assert {"mpi-fast", "Tikhonov", "nonconvex", "DEQ-MPI", "123.4"} <= set(words)
    assert shown.count("-0.012 [-0.123, +0.123]") == len(SNRS)
