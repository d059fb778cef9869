"""``make gpu`` with a simulated clock: the needed measurements are made even if steps are slow."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import gpu_check
import on_gpu
from on_gpu import CHECK, GRACE, ON_GPU, REPORT, WHOLE, WITHOUT, Ran

REPORTING = on_gpu.report("somewhere")
missing = gpu_check.missing


class Machine:
    """A clock, and commands that take their usual time or, if slow, their limit and the grace time."""

    def __init__(self, slow=(), usual=4.0):
        self.now, self.slow, self.usual, self.ran = CHECK + GRACE, slow, usual, []  # the check of the machine was slow

    def clock(self):
        return self.now

    def execute(self, command, seconds):
        self.ran.append((tuple(command), seconds))
        slow = tuple(command) in self.slow
        self.now += seconds + GRACE if slow else min(self.usual, seconds)
        return Ran(1 if slow else 0, slow)

    def run(self):
        said = []
        fine = on_gpu.run(ON_GPU, REPORTING, self.execute, 0.0, self.clock, said.append)
        return fine, "\n".join(said)


def test_no_set_of_slow_steps_keeps_figures_from_being_measured_and_reported():
    commands = [step.command for step in (*ON_GPU, REPORTING)]
    for count in range(len(commands) + 1):
        for slow in itertools.combinations(commands, count):
            machine = Machine(slow)
            machine.run()
            assert machine.now <= WHOLE
            given = dict(machine.ran)
            assert all(given[step.command] == step.limit for step in ON_GPU if step.needed)
            assert machine.ran[-1] == (REPORTING.command, REPORT)


def test_kernels_latency_and_throughput_are_what_is_needed_and_the_kernels_come_first():
    needed = [step.title for step in ON_GPU if step.needed]
    assert needed == ["the kernels are right", "kernels", "latency", "throughput"]
    assert [step.title for step in ON_GPU[: len(needed)]] == needed
    assert sum(step.limit + GRACE for step in ON_GPU if step.needed) + 2 * (REPORT + GRACE) + CHECK < WHOLE


def test_a_report_is_made_as_soon_as_there_are_figures():
    machine = Machine()
    fine, said = machine.run()
    assert fine
    places = [index for index, (command, _) in enumerate(machine.ran) if command == REPORTING.command]
    assert places == [4, len(machine.ran) - 1]
    assert "SKIPPED" not in said


def test_without_a_gpu_there_is_no_report():
    machine = Machine()
    assert on_gpu.run(WITHOUT, None, machine.execute, 0.0, machine.clock, lambda said: None)
    assert [command for command, _ in machine.ran] == [step.command for step in WITHOUT]


def test_what_does_not_fit_any_more_is_said():
    fine, said = Machine([step.command for step in ON_GPU]).run()
    assert not fine
    assert "== compiled and exported networks\nSKIPPED: no time is left of the 8 minutes" in said
    assert "== latency\nINTERRUPTED after 105 s\nFAILED: latency" in said


def test_a_command_that_ignores_the_interruption_is_killed():
    stubborn = (
        "import signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print('x', flush=True); time.sleep(60)"
    )
    began = time.monotonic()
    ran = on_gpu.execute([sys.executable, "-c", stubborn], 2.0, grace=0.5)
    assert ran.interrupted
    assert ran.status
    assert time.monotonic() - began < 30


def test_what_a_command_says_is_its_status():
    assert on_gpu.execute([sys.executable, "-c", "raise SystemExit(3)"], 60) == Ran(3)
    assert on_gpu.execute([sys.executable, "-c", ""], 60) == Ran(0)


def test_missing_parts_are_named_with_the_one_command_that_installs_them(monkeypatch, capsys):
    def find(name):
        if name in ("torch", "cupy", "pytest"):
            raise ImportError(f"No module named '{name}'")
        return object()

    monkeypatch.setattr(gpu_check, "missing", lambda modules: missing(modules, find))
    monkeypatch.setattr(gpu_check, "gpu", lambda: "NVIDIA Some Card")
    assert gpu_check.main() == 1
    said = capsys.readouterr().out
    assert "missing: torch, pytest, cupy. Install them:" in said
    assert f"{sys.executable} -m pip install torch pytest 'cupy-cuda13x[ctk]'" in said


def test_without_a_gpu_cupy_is_not_missed(monkeypatch, capsys):
    monkeypatch.setattr(gpu_check, "gpu", lambda: None)
    monkeypatch.setattr(gpu_check, "missing", lambda modules: missing(modules, lambda name: object()))
    assert gpu_check.main() == on_gpu.NO_GPU
    said = capsys.readouterr().out
    assert "cupy" not in said
    assert "no NVIDIA GPU found" in said


def test_every_file_that_a_step_names_is_there():
    root = Path(on_gpu.__file__).resolve().parent.parent
    for step in (*ON_GPU, *WITHOUT, REPORTING):
        for part in step.command:
            if part.endswith((".py", ".sh")):
                assert (root / part.removeprefix("--ignore=")).is_file(), part


def test_every_tool_of_the_sanitizer_runs_whatever_the_others_find(tmp_path):
    root = Path(on_gpu.__file__).resolve().parent.parent
    fake = tmp_path / "compute-sanitizer"
    fake.write_text("#!/bin/sh\ntest $2 != racecheck\n")
    fake.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": sys.executable}
    ran = subprocess.run(
        ["sh", str(root / "bench/sanitize.sh")], env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert ran.stdout.split("\n")[:4] == ["== memcheck", "== racecheck", "== initcheck", "== synccheck"]
