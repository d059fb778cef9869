"""The lists of modules in the docstrings of packages name all modules that are there, and no others."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest


@pytest.mark.parametrize("package", ["mdf", "formats", "plots", "pipelines"])
def test_lists_of_modules_are_complete(package):
    found = import_module(f"mpi_fast.{package}")
    listed = re.findall(r"^``(\w+)``  ", found.__doc__, re.MULTILINE)
    for line in re.findall(r"^    (\w+  .*)$", found.__doc__.partition("further down::")[2], re.MULTILINE):
        listed += re.split(r"\s{2,}", line)[:-1]
    there = [path.stem for path in Path(found.__file__).parent.glob("*.py") if path.stem != "__init__"]
    assert sorted(listed) == sorted(there)


def test_results_and_calibrations_do_not_import_their_display():
    code = "import sys, mpi_fast.reconstruction, mpi_fast.calibration; sys.exit('mpi_fast.notebook' in sys.modules)"
    root = str(Path(__file__).parent.parent)
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
