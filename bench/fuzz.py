"""Read thousands of damaged files. Each must give the right values or an error of the package, within 5 s and 1 GB.

    python bench/fuzz.py [--files 10000] [--kinds matrix,bundle] [--json FILE]
    python bench/fuzz.py --kinds matrix --again '[["bytes", "flip", 123, 4]]' --keep FILE

Every batch runs in its own process, which records each mutation before it reads the file. So the last line identifies a
mutation that crashes or hangs HDF5. Batches with the same number and seed are equal.
"""

import argparse
import json
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from victims import VICTIMS, Step, check, damaged, mutations

from mpi_fast.errors import MPIFastError

SECONDS, MEMORY = 5.0, 10**9  # limits for one file: processor time, and bytes
PATIENCE = 60.0  # limit of wall-clock time, for files that make the reader wait; other processes may slow it down
BATCH = 100


@contextmanager
def limits(handler: Any = signal.SIG_DFL) -> Iterator[None]:
    """Limit time to 5 s, and memory to 1 GB more than now. After the time `handler` is called, or the process ends."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, PATIENCE)}
    previous = {number: signal.signal(number, handler) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, previous[number])


def outcome(kind: str, path: Path, steps: list[Step]) -> tuple[str, str]:
    """``read``, the class of an error of the package, or ``FAULT``; and the message, for faults with the place."""
    try:
        check(kind, path, steps)
    except MPIFastError as error:
        return type(error).__name__, str(error)
    except Exception as error:  # a fault
        place = [one for one in traceback.extract_tb(error.__traceback__) if "/mpi_fast/" in one.filename]
        where = f"{Path(place[-1].filename).name}:{place[-1].lineno}" if place else "the check"
        return "FAULT", f"{type(error).__name__} at {where}: {str(error)[:200]}"
    return "read", ""


def child(kind: str, number: int, files: int, folder: Path) -> None:
    """Run one batch; prints a line for each mutation, and one for its outcome."""
    original = VICTIMS[kind].build(folder)

    @seed(number)
    @settings(
        max_examples=files, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=[*HealthCheck]
    )
    @given(mutations(kind))
    def one(steps: list[Step]) -> None:
        print(json.dumps(steps), flush=True)
        path = damaged(kind, original, folder / "damaged", steps)
        with limits():
            result = outcome(kind, path, steps)
        print(json.dumps(result), flush=True)

    one()


def batch(kind: str, number: int, files: int) -> Iterator[tuple[list[Step], str, str]]:
    """Mutations, outcomes and messages of one batch."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--child", kind, str(number), str(files), folder]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("[")]
    yield from ((steps, *result) for steps, result in zip(lines[::2], lines[1::2], strict=False))
    if len(lines) % 2 and ran.returncode != 1:
        died = signal.Signals(-ran.returncode).name if ran.returncode < 0 else f"exit {ran.returncode}"
        said = "over 5 s" if died in ("SIGPROF", "SIGALRM") else f"crash, {died}"
        yield lines[-1], "FAULT", f"{said}: {ran.stderr.strip().splitlines()[-1:]}"
    elif ran.returncode:  # an error of this program: the damage itself failed
        raise RuntimeError(f"batch {number} of {kind}: {ran.stderr}")


def run(kinds: list[str], files: int, first: int) -> dict[str, Any]:
    """Run batches of all kinds in turn, until this number of files is reached."""
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    faults: dict[str, dict[str, Any]] = {}
    done, number = 0, first
    while done < files:
        for kind in kinds:
            for steps, result, said in batch(kind, number, BATCH):
                done += 1
                counts[kind][result] += 1
                if result == "FAULT":
                    fault = {"said": said, "seed": number, "steps": steps}
                    print(f"{kind}: {said}\n    seed {number}: {json.dumps(steps)}", file=sys.stderr, flush=True)
                    known = faults.setdefault(f"{kind}: {said.partition(': ')[0]}", {"count": 0, **fault})
                    known["count"] += 1
                    if len(json.dumps(steps)) < len(json.dumps(known["steps"])):  # keeps the shortest mutation
                        known |= fault
            print(f"{done} files, {len(faults)} kinds of faults", file=sys.stderr, flush=True)
        number += 1
    return {"files": done, "outcomes": {kind: dict(count) for kind, count in counts.items()}, "faults": faults}


def again(kind: str, steps: list[Step], keep: Path | None) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = damaged(kind, VICTIMS[kind].build(Path(name)), Path(name) / "damaged", steps)
        if keep:
            keep.write_bytes(path.read_bytes())
        check(kind, path, steps)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--kinds", default=",".join(VICTIMS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--again", type=json.loads)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        kind, number, files, folder = options.child
        child(kind, int(number), int(files), Path(folder))
        return 0
    kinds = options.kinds.split(",")
    if options.again:
        again(kinds[0], options.again, options.keep)
        return 0
    found = run(kinds, options.files, options.seed)
    for kind, count in found["outcomes"].items():
        print(f"{kind}: " + ", ".join(f"{name} {number}" for name, number in sorted(count.items())))
    for kind, fault in sorted(found["faults"].items()):
        print(f"{fault['count']} x {kind}, such as {fault['said']}")
        print(f"    seed {fault['seed']}: {json.dumps(fault['steps'])}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 1 if found["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())
