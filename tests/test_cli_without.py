"""The command line with absurd numbers, and without torch, onnx or a GPU, gives one message and no traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mpi_fast.cli import app


@pytest.mark.parametrize(
    "options",
    [
        ("reconstruct", "x.mdf", "-c", "x.h5", "--evaluations", 10**9),
        ("demo", "--seed", 2**64),
        ("reconstruct", "x.mdf", "-c", "x.h5", "--threads", 10**9),
        ("simulate", "x", "--frames", 10**9),
        ("simulate", "x", "--background-frames", 10**9),
        ("bench", "--repeats", 10**12),
        ("train", "--minutes", 1, "--scanners", 10**9),
        ("train", "--minutes", 1, "--phantoms", 10**12),
        ("compare", "--phantoms", 10**9),
        ("compare", "--workers", 10**9),
    ],
)
def test_numbers_that_are_slips_of_the_keyboard(options):
    result = CliRunner().invoke(app, [str(option) for option in options])
    assert result.exit_code == 2
    assert "less than or equal to" in " ".join(result.stderr.split()).replace(" │ │ ", " ")
    assert "Traceback" not in result.output


def hide(tmp_path, *modules):
    """An environment in which modules cannot be imported."""
    for name in modules:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('No module named {name}')")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}


@pytest.mark.parametrize("module", ["mpi_fast.export", "mpi_fast.export.learned"])
def test_the_export_shows_its_help_without_torch_and_onnx(tmp_path, module):
    environment = hide(tmp_path, "onnx", "torch", "onnxscript")
    command = [sys.executable, "-m", module]
    shown = subprocess.run([*command, "--help"], env=environment, capture_output=True, text=True, check=True)
    assert "Usage" in shown.stdout
    failed = subprocess.run([*command, "x.pt"], env=environment, capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "pip install 'mpi-fast[train]'" in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_the_script_for_a_gpu_says_that_there_is_none(tmp_path):
    script = Path(__file__).parents[1] / "bench" / "tensorrt_rtx_anywhere.py"
    ran = subprocess.run(
        [sys.executable, script], env=hide(tmp_path, "cupy"), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("error: needs CuPy and TensorRT-RTX")
    assert ran.stderr.count("\n") == 1
