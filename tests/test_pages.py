"""README and pages: commands and programs run as printed, links lead to existing files, and the README is short."""

import re
import shlex
import tomllib
from pathlib import Path

import numpy as np
import pytest
import typer
from scipy.io import savemat
from typer.testing import CliRunner

from mpi_fast.cli import app
from mpi_fast.experiment import Receiver, measure_matrix
from mpi_fast.export.__main__ import export
from mpi_fast.phantoms import generate
from mpi_fast.simulation import Scanner

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = "README.md", "docs/index.md"  # all their commands and programs are run in this order, in one folder for each page
READ = {  # commands with these words are not run here; only their options are parsed
    "demo": "takes longest; tests/test_cli_commands.py runs it",
    "compare": "minutes",
    "train": "hours",
    "2.mdf": "a download of gigabytes",
    "shape.mdf": "a download of gigabytes",
    "mpi_fast.export": "needs torch or TensorRT, and a minute; tests/test_export.py",
    "bundle": "made by such an export",
    "live": "a server that runs until it is stopped",
}
OTHERS = "curl", "git", "cd", "export", ".venv/bin/pre-commit", "OMP_NUM_THREADS=1", "docker", "cmake"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The words of each command, without comments and without assignments of variables before it."""
    lines = "".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] if words[0].startswith("OMP_NUM_THREADS") else words for words in split if words]


def is_read_only(words: list[str]) -> bool:
    return any(name in words for name in READ)


def understood(words: list[str]) -> bool:
    """Whether the command is known here; raises an error of click for arguments that it does not accept."""
    if words[:3] == ["python", "-m", "mpi_fast.export"]:
        alone = typer.Typer()
        alone.command()(export)
        typer.main.get_command(alone).make_context("export", words[3:])
        return True
    if words[0] == "mpi-fast":
        typer.main.get_command(app).make_context("mpi-fast", words[1:2])
        command, rest = typer.main.get_command(app), words[1:]
        while hasattr(command, "commands"):
            command, rest = command.commands[rest[0]], rest[1:]
        command.make_context("command", rest)
        return True
    return False


@pytest.fixture
def lab(tmp_path, monkeypatch) -> Path:
    """A folder with the arrays that the pages use: 8 x 8 voxels, one channel, rows of complex numbers."""
    rng = np.random.default_rng(0)
    scanner = Scanner(grid=(8, 8), voxel_size=(10e-3, 10e-3), drive_amplitude=(40e-3, 40e-3), sub_voxels=1)
    matrix = measure_matrix(scanner, 30.0, rng)
    rows = np.argsort(-np.abs(matrix.truth[0]).sum(axis=1))[:60]
    selection = np.zeros(matrix.truth.shape[:2], dtype=bool)
    selection[0, rows] = True
    image = generate("tumours", 1, scanner.grid, rng)
    savemat(tmp_path / "S.mat", {"S": matrix.truth[0, rows]})
    savemat(tmp_path / "b1.mat", {"b1": Receiver(matrix, selection, 30.0, rng).frames(image)[0, 0, rows]})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", RUN)
def test_commands_and_programs_run_as_printed(lab, name):
    page = ROOT / name
    ran = 0
    for words in commands(page):
        if words[0] == "mpi-fast" and not is_read_only(words):
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, f"{shlex.join(words)}: {done.output}"
            ran += 1
    assert ran >= 3
    for program in blocks(page, "python"):
        exec(compile(program, f"{name}, a program", "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_one_that_there_is(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets, words
        elif words[:2] == ["pip", "install"]:
            assert set(re.search(r"\[(.*)\]", words[-1])[1].split(",")) <= set(extras), words
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file(), words
        else:
            assert understood(words) or words[0] in OTHERS, words
    text = page.read_text(encoding="utf-8")
    for wanted in re.findall(r"`make ([a-z]+)", text):
        assert wanted in targets, wanted
    for named in re.findall(r"pip install '(?:\.|mpi-fast)\[([a-z,-]+)\]'", text):
        assert set(named.split(",")) <= set(extras), named


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "SECURITY.md"], ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """MkDocs checks the links of the pages."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        there = page.parent / file
        assert there.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            found = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert anchor in found, target


def test_the_readme_is_short_and_its_picture_small():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
    assert (ROOT / "docs/pictures/bolus.gif").stat().st_size < 300_000


def test_figures_in_the_readme_stand_in_the_results():
    """Every number of the table of quality is in the last part of the file that `make quality` writes."""
    text, results = (ROOT / "README.md").read_text(encoding="utf-8"), ROOT / "bench/results/quality.md"
    rows = re.findall(r"^\| (\d+ dB) \| (.*) / (.*) \| \*\*(.*)\*\* \| (.*) \|$", text, re.MULTILINE)
    assert len(rows) == 4
    for snr, art, ssim, ours, gain in rows:
        theirs, mine = re.escape(f"| **mean** | {snr} | {art} / {ssim} "), re.escape(f"| **{ours}** | {gain} |")
        row = rf"{theirs}(?:\| [^|]*)?{mine}"  # release 0.1 is between them if it could be run
        assert re.search(row, results.read_text(encoding="utf-8"))
