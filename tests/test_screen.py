"""What is printed: names in any encoding, outputs that are full, a folder that is gone, commands to run again."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mpi_fast.cli.provenance import command_line

PROGRAM = [sys.executable, "-m", "mpi_fast"]
SIMULATE = "simulate", "--frames", "1", "--phantoms", "tumours", "--grid", "8x8"


def run(*arguments, stdout=subprocess.PIPE, encoding="utf-8", folder=None):
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [*PROGRAM, *arguments], stdout=stdout, stderr=subprocess.PIPE, env=environment, cwd=folder, check=False
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
@pytest.mark.parametrize("name", ["测量.mdf", os.fsdecode(b"bad\xff.mdf")])
def test_names_that_the_encoding_does_not_have(tmp_path, encoding, name):
    done = run(*SIMULATE, "--matrix", tmp_path / name, encoding=encoding)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"wrote " in done.stdout
    assert (tmp_path / name).exists()
    for path, code in ((tmp_path / name, 0), (tmp_path / f"no {name}", 2)):
        done = run("info", path, encoding=encoding)
        assert done.returncode == code
        assert b"Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_standard_output_is_named_after_the_work(tmp_path):
    with Path("/dev/full").open("w") as full:
        done = run(*SIMULATE, tmp_path / "new", "--json", tmp_path / "facts.json", stdout=full)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        "error: standard output: cannot be written: No space left on device; files that were written are complete\n"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"new", "facts.json"}


@pytest.mark.skipif(os.name == "nt", reason="Windows does not remove the current folder")
def test_a_current_folder_that_was_removed_is_named(tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"rmdir {shlex.quote(str(gone))}; exec {shlex.join(PROGRAM)} info file.mdf"
    done = subprocess.run(["sh", "-c", script], cwd=gone, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: the current folder has been removed")


def test_a_stored_command_can_be_run_again(monkeypatch):
    given = ["reconstruct", "a b.mdf", "-o", "it's.mdf", "--region", "x=0:1,0:1"]
    monkeypatch.setattr(sys, "argv", ["/bin/mpi-fast", *given])
    assert shlex.split(command_line()) == ["mpi-fast", *given]
