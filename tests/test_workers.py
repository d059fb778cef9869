"""Several processes, and merged parts, give the images of one process and one run, even if a worker is killed."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from mdf_files import change, convert
from typer.testing import CliRunner

from mpi_fast.cli import app
from mpi_fast.errors import DeviceError, InputError
from mpi_fast.experiment import measure_matrix
from mpi_fast.mdf import read_reconstruction, validate
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner
from mpi_fast.workers import Workers

FRAMES = 200


@pytest.fixture(scope="module")
def reconstruct():
    calibration = measure_matrix(Scanner(grid=(8, 8)), 20.0, np.random.default_rng(0)).calibrate()
    return Reconstructor(calibration, threads=1)


@pytest.fixture(scope="module")
def chunks(reconstruct):
    rng = np.random.default_rng(1)
    images = rng.uniform(0, 1, (6, 16, 64)) * (rng.uniform(0, 1, (6, 16, 64)) > 0.8)
    clean = images @ reconstruct.calibration.matrix.T
    noise = rng.standard_normal((2, *clean.shape)) * 0.05 * np.abs(clean).mean()
    rows = (clean + noise[0] + 1j * noise[1]).astype(np.complex64)
    rows[3, 5] = np.nan
    return list(rows)


def same(first, second):
    names = "image", "std", "snr_db", "noise_floor", "misfit", "flags"
    return all(getattr(first, name).tobytes() == getattr(second, name).tobytes() for name in names)


def test_a_killed_worker_costs_nothing(reconstruct, chunks):
    expected = list(reconstruct.stream(chunks))
    stream = reconstruct.stream(chunks, workers=2)
    found = [next(stream)]
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGKILL)
    found += stream
    assert len(found) == len(expected)
    assert all(map(same, found, expected))
    assert not multiprocessing.active_children()


def test_an_error_comes_after_the_images_before_it(reconstruct, chunks):
    def broken():
        yield from chunks[:2]
        raise InputError("the source broke")

    stream = reconstruct.stream(broken(), workers=2)
    assert len([next(stream), next(stream)]) == 2
    with pytest.raises(InputError, match="the source broke"):
        next(stream)


def dying():
    os._exit(9)


def test_a_chunk_that_kills_every_worker_is_an_error():
    with Workers(dying, 1) as workers, pytest.raises(DeviceError, match="killed one after the other"):
        list(workers.map([np.zeros((1, 2), np.complex64)]))


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="how processes are is not told here")
def test_workers_end_with_a_parent_that_is_killed(reconstruct, chunks, tmp_path):
    context = multiprocessing.get_context("spawn")
    parent = context.Process(target=_work_until_killed, args=(reconstruct._choose, chunks[0], tmp_path / "pids"))
    parent.start()
    deadline = time.monotonic() + 120
    while not (tmp_path / "pids").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.join()
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    while any(map(_lives, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _work_until_killed(make, rows, path):
    with Workers(make, 2) as workers:
        stream = workers.map(rows for _ in range(10**6))
        next(stream)
        pids = " ".join(str(one.pid) for one in multiprocessing.active_children())
        path.with_suffix(".new").write_text(pids)
        path.with_suffix(".new").rename(path)
        for _ in stream:
            pass


def _lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# -- the command line ------------------------------------------------------------------------------------------------


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "300"})
    assert result.exit_code == code, result.output
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    run("simulate", folder, "--frames", FRAMES, "--background-frames", 20, "--grid", "8x8", "--spectra")
    run("calibrate", folder / "system-matrix.mdf", "-o", folder / "scanner.h5", "--max-rows", 100)
    part(folder, "whole.mdf")
    part(folder, "first.mdf", "--frames", "0:64")
    part(folder, "last.mdf", "--frames", "64:200")
    return folder


def part(folder, output, *options):
    command = "reconstruct", folder / "measurement.mdf", "-c", folder / "scanner.h5", "-o", folder / output
    return run(*command, "--threads", 1, *options)


def images_of(path):
    with h5py.File(path) as h5:
        names = [name for name in h5["reconstruction"] if name not in ("_provenance", "order")]
        return {name: h5["reconstruction"][name][()].tobytes() for name in names}


def test_workers_write_what_one_process_does(made):
    part(made, "workers.mdf", "--workers", 2)
    assert images_of(made / "workers.mdf") == images_of(made / "whole.mdf")


def test_merged_parts_are_the_whole(made, tmp_path):
    shown = run("merge", made / "last.mdf", made / "first.mdf", "-o", tmp_path / "all.mdf", "-o", tmp_path / "all.npz")
    assert f"{FRAMES} frames of 2 files" in shown.stdout
    assert validate(tmp_path / "all.mdf") == []
    first, last, merged = (images_of(path) for path in (made / "first.mdf", made / "last.mdf", tmp_path / "all.mdf"))
    of_frames = [name for name in first if name == "data" or name.startswith("_")]
    assert merged.keys() == first.keys()
    assert all(merged[name] == first[name] + last[name] for name in of_frames)
    for name in ("data", "_std", "_quantiles", "_frame", "_time", "_snrDecibel"):
        merged, whole = (read_reconstruction(path, name) for path in (tmp_path / "all.mdf", made / "whole.mdf"))
        assert merged.tobytes() == whole.tobytes(), name
    with np.load(tmp_path / "all.npz") as arrays:
        assert np.array_equal(arrays["image"], read_reconstruction(made / "whole.mdf"))
        merged = json.loads(str(arrays["provenance"]))["merged"]
    assert [one["file"] for one in merged] == ["first.mdf", "last.mdf"]


def test_parts_that_do_not_belong_together_are_refused(made, tmp_path):
    output = "-o", tmp_path / "all.mdf"
    twice = run("merge", made / "whole.mdf", made / "last.mdf", *output, code=2).stderr
    assert "both hold frame 64: parts without common frames were expected" in twice
    part(made, "other.mdf", "--frames", "0:64", "--no-background")
    other = run("merge", made / "other.mdf", made / "last.mdf", *output, code=2).stderr
    assert "cannot be merged: background_subtracted is false and true" in other
    truth = run("merge", made / "truth.mdf", made / "last.mdf", *output, code=2).stderr
    assert "has no /reconstruction/_frame: a file that mpi-fast wrote was expected" in truth
    part(made, "late.mdf", "--frames", "100:120")
    assert "frames 64 to 99, between " in run("merge", made / "first.mdf", made / "late.mdf", *output).stderr
    assert len(read_reconstruction(tmp_path / "all.mdf")) == 84


def test_parts_of_different_files_of_one_name_are_refused(made, tmp_path):
    other = tmp_path / "other"
    run("simulate", other, "--frames", 4, "--background-frames", 4, "--grid", "8x8", "--spectra", "--seed", 1)
    part(made, "begun.mdf", "--frames", "0:2")
    command = "reconstruct", other / "measurement.mdf", "-c", made / "scanner.h5", "--threads", 1, "--frames", "2:4"
    run(*command, "-o", tmp_path / "ended.mdf")
    refused = run("merge", made / "begun.mdf", tmp_path / "ended.mdf", "-o", tmp_path / "all.mdf", code=2).stderr
    assert "cannot be merged: fingerprints.measurement is " in refused
    shutil.copy(made / "measurement.mdf", other / "measurement.mdf")
    run(*command, "-o", tmp_path / "ended.mdf")
    run("merge", made / "begun.mdf", tmp_path / "ended.mdf", "-o", tmp_path / "all.mdf")


def test_parts_of_different_periods_are_refused(made, tmp_path):
    run("simulate", tmp_path, "--frames", 8, "--background-frames", 4, "--grid", "8x8")
    two = tmp_path / "measurement.mdf"
    convert(two, "/measurement/data", lambda data: data.reshape(6, 2, *data.shape[2:]))
    change(two, {"/measurement/isBackgroundFrame": np.array([0, 0, 0, 0, 1, 1], np.int8)})
    change(two, {"/acquisition/numFrames": 6, "/acquisition/numPeriodsPerFrame": 2})
    for periods, selected in (("0:1", "0:2"), ("1:2", "2:4"), (":1", "2:4")):
        output = tmp_path / f"{periods}-{selected}.mdf".replace(":", "_")
        command = "reconstruct", two, "-c", made / "scanner.h5", "--threads", 1, "-o", output
        run(*command, "--periods", periods, "--frames", selected)
    first, other, same_period = (tmp_path / f"{name}.mdf" for name in ("0_1-0_2", "1_2-2_4", "_1-2_4"))
    refused = run("merge", first, other, "-o", tmp_path / "all.mdf", code=2).stderr
    assert "cannot be merged: periods is [0, 1] and [1, 2]" in refused
    run("merge", first, same_period, "-o", tmp_path / "all.mdf")
