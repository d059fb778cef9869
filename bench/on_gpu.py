"""Everything that needs a GPU, in one run and without internet: ``make gpu``, or ``PYTHON bench/on_gpu.py [FOLDER]``.

In a Python that already has PyTorch and CuPy, it runs tests, benchmarks, and the kernels under compute-sanitizer. It
writes one JSON file and one Markdown table, named after the GPU, to FOLDER (default bench/results). Without a GPU it
does the possible steps, and reports which ones it left out and why.

It takes 8 minutes at most. The most important steps come first, and their time limits add up to less than that:
correctness and times of the kernels, the latency of a frame, and the throughput. The other steps share the remaining
time. A step that exceeds its limit is interrupted, and killed if necessary; benchmarks then keep the results so far.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

WHOLE, REPORT, GRACE = 480.0, 25.0, 5.0  # seconds: of everything, of a report, between interruption and end of a step
CHECK = 40.0  # seconds for the check of this machine
SHORTEST = 5.0  # seconds; a step with less time is skipped
NO_GPU = 3  # exit status of gpu_check.py


@dataclass(frozen=True)
class Step:
    """A command with a time limit in seconds; ``needed`` steps come first and always get this time."""

    title: str
    command: tuple[str, ...]
    limit: float
    needed: bool = False


@dataclass(frozen=True)
class Ran:
    """The result of a command."""

    status: int
    interrupted: bool = False


Execute = Callable[[Sequence[str], float], Ran]


def benchmark(title: str, name: str, limit: float, *arguments: str, needed: bool = False) -> Step:
    """A step of pytest-benchmark, which writes NAME.json in the scratch folder."""
    options = ("-q", "-rs", f"--benchmark-json={{scratch}}/{name}.json", "--benchmark-columns=median,iqr,max,rounds")
    return Step(title, ("{python}", "-m", "pytest", *options, *arguments), limit, needed)


def checks(title: str, limit: float, *arguments: str, needed: bool = False) -> Step:
    """A step of pytest."""
    return Step(title, ("{python}", "-m", "pytest", "-q", "-ra", *arguments), limit, needed)


def report(folder: str) -> Step:
    """The step that makes tables of all measurements so far."""
    return Step("report", ("{python}", "bench/gpu_report.py", "{scratch}", "-o", folder), REPORT)


KERNELS = "tests/test_device_gpu.py"
ON_GPU = (
    checks("the kernels are right", 80, "-m", "gpu", KERNELS, needed=True),
    benchmark("kernels", "kernels", 60, "-m", "gpu", "bench/test_kernels.py", needed=True),
    benchmark(
        "latency",
        "latency",
        105,
        "-m",
        "gpu",
        "bench/test_gpu.py",
        "-k",
        "latency and not compiled and not exported",
        needed=True,
    ),
    benchmark("throughput", "throughput", 70, "-m", "gpu", "bench/test_gpu.py", "-k", "throughput", needed=True),
    checks("tests on the GPU", 90, "-m", "gpu", "tests", f"--ignore={KERNELS}"),
    Step("compute-sanitizer", ("bench/sanitize.sh",), 100),
    benchmark(
        "compiled and exported networks",
        "made",
        300,
        "-m",
        "gpu",
        "bench/test_gpu.py",
        "-k",
        "compiled or exported",
    ),
)
WITHOUT = (
    checks("kernels compiled for every architecture", 200, "tests/test_kernel_compile.py"),
    checks("everything that runs on a GPU can be imported", 60, "--collect-only", "-m", "gpu", "tests", "bench"),
)


def run(
    steps: Sequence[Step],
    reporting: Step | None,
    execute: Execute,
    began: float,
    clock: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = print,
) -> bool:
    """Run the steps, with a report after the needed ones and one at the end; returns whether all succeeded.

    A step only begins if it and the report end within `WHOLE` seconds after ``began``.
    """
    fine, reported = True, False

    def one(step: Step, limit: float) -> None:
        nonlocal fine
        say(f"\n== {step.title}")
        ran = execute(step.command, limit)
        if ran.interrupted:
            say(f"INTERRUPTED after {limit:.0f} s")
        if ran.status:
            say(f"FAILED: {step.title}")
            fine = False

    for step in steps:
        if reporting and not step.needed and not reported:
            one(reporting, REPORT)  # keeps the results so far, whatever happens later
            reported = True
        left = began + WHOLE - REPORT - 2 * GRACE - clock()
        limit = min(step.limit, left)
        if limit < SHORTEST:
            say(f"\n== {step.title}\nSKIPPED: no time is left of the {WHOLE / 60:.0f} minutes")
            continue
        one(step, limit)
    if reporting:
        one(reporting, REPORT)
    return fine


def execute(command: Sequence[str], seconds: float, grace: float = GRACE) -> Ran:
    """Run a command with a time limit, after which it is interrupted and, after ``grace`` seconds, killed."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            return Ran(process.wait(seconds))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)
        try:
            return Ran(process.wait(grace) or 1, interrupted=True)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return Ran(process.wait() or 1, interrupted=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default="bench/results")
    folder = parser.parse_args().folder
    began, root = time.monotonic(), Path(__file__).resolve().parent.parent
    os.chdir(root)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ.update(PYTHONPATH=str(root), PYTHONUNBUFFERED="1", MPI_FAST_CACHE=f"{scratch}/cache")

        def filled(command: Sequence[str], seconds: float) -> Ran:
            return execute([part.format(python=sys.executable, scratch=scratch) for part in command], seconds)

        print("== this machine", flush=True)
        found = filled(("{python}", "bench/gpu_check.py"), CHECK)
        if found.status == NO_GPU:
            fine = run(WITHOUT, None, filled, began, say=shown)
            shown("\nSKIPPED: no GPU: tests, kernels, latency, throughput, compute-sanitizer; no results are written")
            return 0 if fine else 1
        if found.status:
            return 1
        steps = [step for step in ON_GPU if shutil.which("compute-sanitizer") or step.title != "compute-sanitizer"]
        if len(steps) < len(ON_GPU):
            shown("SKIPPED: compute-sanitizer is not on the path; it is part of the CUDA toolkit")
        return 0 if run(steps, report(folder), filled, began, say=shown) else 1


def shown(text: str) -> None:
    """Print without delay, so that the order with the output of other processes is right."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
