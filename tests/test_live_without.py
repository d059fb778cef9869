"""Without the extra ``live``, one line says that it is not installed."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("package", ["starlette", "hdrh"])
def test_what_is_not_installed_is_named(tmp_path, package):
    (tmp_path / f"{package}.py").write_text(f"raise ImportError('No module named {package}')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", "mpi_fast", "live", "simulate"]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "pip install 'mpi-fast[live]'" in ran.stderr
    assert ran.stderr.count("\n") == 1
