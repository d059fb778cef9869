"""Files stay intact with full disks, signals, targets that are no plain files, forks, threads and closed pipes."""

import itertools
import os
import resource
import signal
import stat
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from children import Child, command
from mdf_files import acquisition, measurement
from threadpoolctl import threadpool_info, threadpool_limits
from typer.testing import CliRunner

from mpi_fast import atomic
from mpi_fast.blas import single_blas_thread
from mpi_fast.cli import app
from mpi_fast.console import friendly, write_json
from mpi_fast.errors import InputError, MPIFastError, OutputError
from mpi_fast.experiment import measure_matrix
from mpi_fast.formats.common import require_library
from mpi_fast.mdf import MeasurementFile, write_measurement
from mpi_fast.optional import optional
from mpi_fast.reconstructor import Reconstructor
from mpi_fast.simulation import Scanner

QUICK = "--threads", "1"

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _no_child_is_left():
    yield
    while Child.living:
        Child.living.pop().end()


def write_endlessly(path):
    write_measurement(path, itertools.repeat(np.ones((64, 2, 16), np.float32)), acquisition=acquisition())


def endless(path):
    """Write frames without end, as a command does."""

    def work():
        try:
            with friendly():
                write_endlessly(path)
        except typer.Exit as end:
            return end.exit_code

    return work


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    for arguments in (
        ("simulate", folder, "--frames", 40, "--background-frames", 4, "--grid", "8x8"),
        ("calibrate", folder / "system-matrix.mdf", "-o", folder / "scanner.h5"),
    ):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
    return folder


# -- full disks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "limit"), [("simulate", 0), ("simulate", 20_000), ("calibrate", 300), ("reconstruct", 3000)]
)
def test_a_full_disk_is_one_message(made, tmp_path, name, limit):
    arguments = {
        "simulate": ("simulate", tmp_path, "--frames", 4, "--grid", "8x8"),
        "calibrate": ("calibrate", made / "system-matrix.mdf", "-o", tmp_path / "scanner.h5"),
        "reconstruct": (
            *("reconstruct", made / "measurement.mdf", "-c", made / "scanner.h5", *QUICK),
            *("-o", tmp_path / "images.mdf"),
        ),
    }[name]
    code, _, said = Child(command(*arguments), limit=limit).said()
    assert (code, said.count("\n")) == (2, 1), said
    assert "cannot be written: File too large" in said
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".mpi-fast-")]
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".mdf", ".h5")]


def test_after_a_full_disk_the_same_process_writes_elsewhere(tmp_path):
    full, elsewhere = tmp_path / "full.mdf", tmp_path / "elsewhere.mdf"
    frames = np.ones((1000, 2, 16), np.float32)

    def work():
        for _ in range(3):
            with pytest.raises(OutputError, match=r"full\.mdf: cannot be written: File too large"):
                write_measurement(full, (frames[k : k + 64] for k in range(0, 1000, 64)), acquisition=acquisition())
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        write_measurement(elsewhere, frames, acquisition=acquisition())

    assert Child(work, limit=50_000).said() == (0, "", "")
    assert list(tmp_path.iterdir()) == [elsewhere]
    with MeasurementFile(elsewhere) as file:
        assert file.num_frames == 1000


def test_a_full_disk_keeps_the_older_result(tmp_path, monkeypatch):
    path = tmp_path / "a.mdf"
    measurement(path)
    before = path.read_bytes()

    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)  # file systems with delayed writing report errors here
    with pytest.raises(OutputError, match=r"a\.mdf: cannot be written: No space left on device"):
        measurement(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# -- signals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGINT"])
def test_signals_leave_no_temporary_files(tmp_path, name):
    number = getattr(signal, name)
    child = Child(endless(tmp_path / "a.mdf"))
    child.wait_for(lambda: any(path.stat().st_size > 10_000 for path in tmp_path.iterdir()))
    child.send(number)
    assert child.said() == (128 + number, "", f"ended by {name}\n")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_is_not_lost_where_the_library_writes(tmp_path):
    def work():
        with pytest.raises(KeyboardInterrupt):
            write_endlessly(tmp_path / "a.mdf")

    child = Child(work)
    child.wait_for(lambda: any(path.stat().st_size > 10_000 for path in tmp_path.iterdir()))
    child.send(signal.SIGINT)
    assert child.said() == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_ignored_signals_stay_ignored(tmp_path):
    def work():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does it
        return endless(tmp_path / "a.mdf")()

    child = Child(work)
    child.wait_for(lambda: any(tmp_path.iterdir()))
    child.send(signal.SIGHUP)
    time.sleep(0.2)
    child.send(signal.SIGTERM)
    assert child.said()[0] == 128 + signal.SIGTERM


def test_the_next_run_removes_what_a_killed_one_left(tmp_path):
    killed, alive = (Child(endless(tmp_path / name)) for name in ("a.mdf", "b.mdf"))
    killed.wait_for(lambda: len([*tmp_path.iterdir()]) == 2)
    killed.send(signal.SIGKILL)
    assert killed.said()[0] == -signal.SIGKILL
    assert len([*tmp_path.iterdir()]) == 2
    measurement(tmp_path / "c.mdf")
    (left,) = (path for path in tmp_path.iterdir() if path.name != "c.mdf")
    assert f"-{alive.pid}-" in left.name
    alive.send(signal.SIGTERM)
    alive.said()
    assert list(tmp_path.iterdir()) == [tmp_path / "c.mdf"]


# -- targets -------------------------------------------------------------------------------------------------------


def test_links_are_followed(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.mdf").symlink_to("disk/real.mdf")
    for _ in range(2):  # first a dangling link, then a link to a file
        measurement(tmp_path / "link.mdf")
        assert (tmp_path / "link.mdf").is_symlink()
        assert h5py.is_hdf5(tmp_path / "disk" / "real.mdf")
    assert len([*(tmp_path / "disk").iterdir()]) == 1
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "nowhere").symlink_to("missing/file")
    with pytest.raises(InputError, match="circle: cannot be written: it is a symbolic link in a circle"):
        measurement(tmp_path / "circle")
    with pytest.raises(InputError, match=r"nowhere: cannot be written: the folder .*missing does not exist"):
        measurement(tmp_path / "nowhere")


def test_permissions_are_kept_and_read_only_files_are_not_replaced(tmp_path):
    path = tmp_path / "a.mdf"
    measurement(path)
    before = path.read_bytes()
    path.chmod(0o440)
    with pytest.raises(InputError, match=r"a\.mdf: cannot be written: the file that is there is read-only"):
        measurement(path)
    assert path.read_bytes() == before
    path.chmod(0o640)
    measurement(path)
    assert path.read_bytes() != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_devices_and_pipes_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/null")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match=f"{name}: cannot be written: it is a pipe or a device"):
            measurement(tmp_path / name)
    assert (tmp_path / "pipe").is_fifo()
    assert Path("/dev/null").is_char_device()


def test_files_are_on_the_disk_before_they_get_their_name(tmp_path, monkeypatch):
    done = []
    real = atomic.sync, Path.replace
    monkeypatch.setattr(atomic, "sync", lambda path: (done.append(f"sync {path.suffix}"), real[0](path)))
    monkeypatch.setattr(Path, "replace", lambda *paths: (done.append("rename"), real[1](*paths)))
    write_json(tmp_path / "a.json", {})
    assert done == ["sync .json", "rename", "sync "]


# -- processes and threads -----------------------------------------------------------------------------------------


def test_a_fork_while_another_thread_reconstructs(tmp_path):
    measured = measure_matrix(Scanner(grid=(8, 8)), 20.0, np.random.default_rng(0))
    calibration = measured.calibrate()
    rows = np.ones((4, calibration.num_rows), np.complex64) * calibration.matrix[:, 0]
    reconstruct = Reconstructor(calibration, threads=2)
    expected, over = reconstruct(rows).image, threading.Event()

    def work():
        while not over.is_set():
            reconstruct(rows)

    thread = threading.Thread(target=work)
    thread.start()
    children = []
    for _ in range(5):
        child = os.fork()
        if not child:
            signal.alarm(60)  # kills a child that hangs
            equal = np.array_equal(reconstruct(rows).image, expected)
            os._exit(0 if equal else 1)
        children.append(child)
        time.sleep(0.02)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    over.set()
    thread.join()
    assert statuses == [0] * 5
    assert np.array_equal(reconstruct(rows).image, expected)


def test_blas_gets_its_threads_back_after_concurrent_calls():
    def threads():
        return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}

    first, second = single_blas_thread(), single_blas_thread()
    with threadpool_limits(limits=2, user_api="blas"):
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert threads() == {1}
        second.__exit__(None, None, None)
        assert threads() == {2}


LIBRARY = """
import os, signal
try:
    os.kill(os.getpid(), signal.{name})
    signal.getsignal(signal.{name})  # the handler runs at the latest here
except BaseException:
    pass
raise ImportError("initialization failed")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_an_import_is_no_missing_library(tmp_path, monkeypatch, number):
    """As libraries in C do, this one turns the exception into an ImportError without a cause."""
    (tmp_path / "interrupted_library.py").write_text(LIBRARY.format(name=number.name))
    monkeypatch.syspath_prepend(str(tmp_path))

    def work():
        try:
            with friendly():
                require_library(Path("x.nii"), "nifti", "interrupted_library")
        except typer.Exit as end:
            return end.exit_code

    assert Child(work).said() == (128 + number, "", f"ended by {number.name}\n")


def test_an_interruption_that_a_library_turned_into_an_error_is_raised_again():
    with pytest.raises(KeyboardInterrupt), optional("a library is missing"):
        raise ImportError("initialization failed") from KeyboardInterrupt()
    with pytest.raises(MPIFastError, match=r"^it needs x \(no symbol\)$"), optional("it needs x"):
        raise ImportError("no symbol")


@pytest.mark.parametrize("name", ["info", "reconstruct"])
def test_a_closed_pipe_does_not_spoil_a_complete_run(made, tmp_path, name):
    output = () if name == "info" else ("-o", tmp_path / "images.mdf", "--json", tmp_path / "images.json")
    more = () if name == "info" else ("-c", made / "scanner.h5", *QUICK)
    read, write = os.pipe()
    os.close(read)
    child = Child(command(name, made / "measurement.mdf", *more, *output), stdout=write)
    os.close(write)
    assert child.said() == (0, "", "")
    assert len([*tmp_path.iterdir()]) == len(output) // 2
