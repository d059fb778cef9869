"""Kill a reconstruction at random moments, or fill its disk, and compare the final results.

    python bench/interruptions.py --kills 50 --full 10

Every child process is killed by SIGKILL at a random moment, or its disk has space for a random share of the output.
Then ``--resume`` completes the work. An older file has the name of the output; it must stay unchanged, byte for byte,
until the new one is complete.
"""

import argparse
import os
import random
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import h5py
from typer.testing import CliRunner

from mpi_fast.cli import app

FRAMES = 1000
OLD = b"an older result"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def reconstruct(folder, output, *options):
    command = "reconstruct", folder / "measurement.mdf", "-c", folder / "scanner.h5", "-o", output, "--threads", 1
    return run(*command, *options)


def images_of(path):
    with h5py.File(path) as h5:
        return {name: h5["reconstruction"][name][()] for name in h5["reconstruction"] if name != "_provenance"}


def same(first, second):
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first if name != "order"
    )


def in_child(work, seconds=None):
    """Run work in a child process, and kill it after some seconds if given; returns its exit code."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code = work().exit_code
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill(folder, place, whole, seconds):
    """Whether the result is right after two kills, the second one during the resumed run."""
    output = place / "images.mdf"
    output.write_bytes(OLD)
    for options in ((), ("--resume",)):
        in_child(lambda options=options: reconstruct(folder, output, *options), random.uniform(0, seconds))
        if output.read_bytes() != OLD and not same(images_of(output), whole):
            return False
    done = reconstruct(folder, output, "--resume")
    return done.exit_code == 0 and same(images_of(output), whole) and list(place.iterdir()) == [output]


def fill(folder, place, whole, room):
    """Whether the result is right after the disk, a file system in memory, was full and has space again."""
    output = place / "images.mdf"
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room}", "none", str(place)]
    subprocess.run(mount, check=True)
    try:
        output.write_bytes(OLD)
        code = in_child(lambda: reconstruct(folder, output))
        if code != 2 or output.read_bytes() != OLD:
            return False
        subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
        done = reconstruct(folder, output, "--resume")
        return done.exit_code == 0 and same(images_of(output), whole) and list(place.iterdir()) == [output]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--full", type=int, default=10, help="times; needs the right to mount a file system")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    random.seed(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        simulated = "--frames", FRAMES, "--background-frames", 20, "--grid", "8x8", "--spectra"
        assert run("simulate", folder, *simulated).exit_code == 0
        calibrated = run("calibrate", folder / "system-matrix.mdf", "-o", folder / "scanner.h5", "--max-rows", 100)
        assert calibrated.exit_code == 0
        began = time.monotonic()
        assert reconstruct(folder, folder / "whole.mdf").exit_code == 0
        seconds, whole = time.monotonic() - began, images_of(folder / "whole.mdf")
        written = (folder / "whole.mdf").stat().st_size  # the journal takes as much in addition
        good = 0
        print(f"{FRAMES} frames in {seconds:.1f} s; each run is killed twice within that time", flush=True)
        for number in range(arguments.kills):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                good += kill(folder, Path(place), whole, seconds)
            print(f"killed: {good} of {number + 1} whole and equal byte for byte", flush=True)
        good = 0
        for number in range(arguments.full):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                good += fill(folder, Path(place), whole, int(random.uniform(0.05, 0.95) * written))
            print(f"full disk: {good} of {number + 1} whole and equal byte for byte", flush=True)


if __name__ == "__main__":
    main()
