"""The log is silent by default, and shown on request."""

import logging
import subprocess
import sys

import numpy as np
from typer.testing import CliRunner

from mpi_fast.calibration import Calibration
from mpi_fast.cli import app
from mpi_fast.experiment import measure_matrix
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner


def calibration() -> Calibration:
    return measure_matrix(Scanner(), 20.0, np.random.default_rng(0)).calibrate()


def test_a_program_that_listens_hears_what_is_done(caplog):
    with caplog.at_level(logging.INFO, logger="mpi_fast"):
        Reconstructor(calibration(), threads=1)
    said = [record.getMessage() for record in caplog.records]
    assert any("singular values" in one for one in said)
    assert any(one.startswith("reconstructs on ONNX Runtime") for one in said)


def test_nobody_hears_anything_unasked():
    """Runs in a separate process, because the handlers of the tests would show messages here."""
    code = "import logging, mpi_fast; logging.getLogger('mpi_fast.live').error('on fire')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == done.stderr == ""


def test_the_command_line_shows_it_when_asked(tmp_path):
    runner, logger = CliRunner(), logging.getLogger("mpi_fast")
    before, level = logger.handlers[:], logger.level
    try:
        options = ["bench", "--repeats", "1", "--frames", "1", "--threads", "1"]
        assert "reconstructs on" not in runner.invoke(app, options).output
        result = runner.invoke(app, ["--verbose", *options])
        assert result.exit_code == 0, result.output
        assert "reconstructs on" in result.output
    finally:
        logger.handlers[:] = before
        logger.setLevel(level)
