"""Only files in their own folder, of bounded size, that do not harm HDF5 are opened."""

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from mdf_files import DATA, change, measurement, refused, replace, system_matrix

from mpi_fast.errors import FileFormatError
from mpi_fast.mdf import MeasurementFile, SystemMatrixFile, access, rehearsal


@pytest.fixture
def path(tmp_path):
    return tmp_path / "file.mdf"


# -- other folders-----------------------------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path):
    """A measurement in a folder, and copies of its data outside of it; returns the path."""
    (tmp_path / "own").mkdir()
    path = tmp_path / "own" / "file.mdf"
    old = measurement(path)
    with h5py.File(tmp_path / "other.h5", "w") as h5:
        h5["d"] = old
    (tmp_path / "raw.bin").write_bytes(old.tobytes())
    return path


def external_link(h5, old):
    h5[DATA] = h5py.ExternalLink("../other.h5", "/d")


def absolute_link(h5, old):
    h5[DATA] = h5py.ExternalLink(str(Path(h5.filename).parents[1] / "other.h5"), "/d")


def virtual_elsewhere(h5, old):
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[:] = h5py.VirtualSource("../other.h5", "d", old.shape)
    h5.create_virtual_dataset(DATA, layout)


def raw_elsewhere(h5, old):
    h5.create_dataset(DATA, old.shape, old.dtype, external=[("../raw.bin", 0, old.nbytes)])


@pytest.mark.parametrize("elsewhere", [external_link, absolute_link, virtual_elsewhere, raw_elsewhere])
def test_nothing_outside_is_followed_unless_asked(outside, elsewhere):
    with MeasurementFile(outside) as file:
        expected = next(file.frames())
    replace(outside, elsewhere)
    refused(outside, "outside of the folder .*; allow it with")
    with access(external=True), MeasurementFile(outside) as file:
        np.testing.assert_array_equal(next(file.frames()), expected)
    refused(outside, "outside of the folder")


def numbered(path, pattern):
    """Replace the data by a virtual dataset with unlimited sources, named by a pattern."""

    def make(h5, old):
        whole = (h5py.h5s.UNLIMITED, *old.shape[1:])
        space = h5py.h5s.create_simple(old.shape, whole)
        space.select_hyperslab((0,) * 4, (h5py.h5s.UNLIMITED, 1, 1, 1), old.shape, old.shape)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_virtual(space, pattern, b"d", h5py.h5s.create_simple(old.shape))
        kind = h5py.h5t.py_create(old.dtype)
        h5py.h5d.create(h5.id, DATA.encode(), kind, h5py.h5s.create_simple(old.shape, whole), properties)

    return replace(path, make)


def test_sources_that_a_pattern_names_are_checked_one_by_one(tmp_path):
    """Links could lead them anywhere, and they could be links and virtual datasets themselves."""
    folder = tmp_path / "mine"
    folder.mkdir()
    measurement(folder / "m.mdf", background=0)
    old = numbered(folder / "m.mdf", b"part%b.h5")
    for path in (folder / "part0.h5", folder / "part1.h5", tmp_path / "other.h5"):
        with h5py.File(path, "w") as h5:
            h5["d"] = old
    change(folder / "m.mdf", {"/measurement/isBackgroundFrame": np.zeros(2 * len(old), np.int8)})
    with MeasurementFile(folder / "m.mdf") as file:
        assert file.num_frames == 2 * len(old)
    with h5py.File(folder / "part1.h5", "w") as h5:
        h5["d"] = h5py.ExternalLink("../other.h5", "d")
    with pytest.raises(FileFormatError, match=r"part1\.h5: d lies in another file, '\.\./other\.h5', outside"):
        MeasurementFile(folder / "m.mdf")
    (folder / "part1.h5").unlink()
    (folder / "part1.h5").symlink_to(tmp_path / "other.h5")
    refused(folder / "m.mdf", "/measurement/data lies in another file, 'part1.h5', outside of the folder")
    (folder / "part1.h5").unlink()
    (folder / "part0.h5").unlink()
    refused(folder / "m.mdf", "/measurement/data lies in another file, 'part0.h5', which does not exist")


def test_a_system_file_is_not_shown(outside):
    with h5py.File(outside, "r+") as h5:
        del h5["/version"]
        h5.create_dataset("/version", (1,), "S64", external=[("/etc/hostname", 0, 64)])
    refused(outside, "/version lies in another file, '/etc/hostname', outside of the folder")
    with h5py.File(outside, "r+") as h5:
        del h5["/version"]
        h5["/version"] = "x" * 1000
    with pytest.raises(FileFormatError, match=r"/version is 'x{70,80}\.\.\.; MDF version 2"):
        MeasurementFile(outside)


def test_only_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for path, message in (("pipe", "a pipe or a device"), ("empty", "the file is empty"), ("/dev/zero", "a pipe or")):
        with pytest.raises(FileFormatError, match=message):
            MeasurementFile(tmp_path / path)
    with pytest.raises(FileFormatError, match="cannot be opened"):
        MeasurementFile("zero\0byte")


def test_memory_is_bounded_by_what_the_file_holds(path):
    system_matrix(path)
    with h5py.File(path, "r+") as h5:
        del h5["/calibration/snr"]
        h5.create_dataset("/calibration/snr", (1, 10**6, 10**6), "f8", chunks=(1, 1000, 100))
    refused(path, "/calibration/snr declares 7629395 MiB, more than the file can hold", SystemMatrixFile)
    change(path, {"/calibration/snr": None, "/acquisition/receiver/numSamplingPoints": 10**12})
    refused(path, "numSamplingPoints is 1000000000000; at most", SystemMatrixFile)
    measurement(path)
    replace(path, lambda h5, old: h5.create_dataset(DATA, (10**5, 1, 2, 16), "f4", chunks=(10**5, 1, 2, 16)))
    with h5py.File(path, "r+") as h5:
        del h5[DATA]
        h5.create_dataset(DATA, (10**8, 1, 2, 16), "f4", chunks=(10**7, 1, 2, 1))
    refused(path, "has chunks of 76 MiB")


# -- crashes of HDF5 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["itself", "its file's name", "another dataset", "another name"])
def test_a_dataset_that_is_its_own_source(path, route):
    measurement(path)

    def make(h5, old):
        def point(name, file, source):
            layout = h5py.VirtualLayout(old.shape, old.dtype)
            layout[:] = h5py.VirtualSource(file, source, old.shape)
            h5.create_virtual_dataset(name, layout)

        point(DATA, path.name if route == "its file's name" else ".", "/_x" if route.startswith("another") else DATA)
        if route == "another dataset":
            point("/_x", ".", DATA)
        elif route == "another name":
            h5["/_x"] = h5[DATA]

    with h5py.File(path, "r+") as h5:
        old = h5[DATA][()]
        del h5[DATA]
        make(h5, old)
    refused(path, "is a virtual dataset that is its own source")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"crashed HDF5 \(signal 11\)"),
        ("while True: pass", "took longer than 1 s"),
        ("x = bytes(1 << 42)", "failed: MemoryError"),
    ],
)
def test_what_kills_the_child_process_is_refused(path, monkeypatch, code, message):
    measurement(path)
    run = subprocess.run

    def sabotaged(command, **options):
        return run([sys.executable, "-c", code], **options)

    monkeypatch.setattr(rehearsal.subprocess, "run", sabotaged)
    with access(untrusted=True, seconds=0.8):
        refused(path, f"made to do harm: reading it in a child process {message}")


def test_untrusted_files_that_do_no_harm_read_as_usual(path, monkeypatch):
    old = measurement(path)
    runs = []
    run = subprocess.run
    monkeypatch.setattr(rehearsal.subprocess, "run", lambda *a, **k: runs.append(a) or run(*a, **k))
    with access(untrusted=True):
        for _ in range(2):
            with MeasurementFile(path) as file:
                np.testing.assert_allclose(next(file.frames()), np.fft.rfft(old[:6, 0]), rtol=1e-5, atol=1e-5)
    assert len(runs) == 1, "one child process for one state of a file"


def test_a_link_to_a_file_finds_what_lies_beside_the_file(tmp_path):
    (tmp_path / "archive").mkdir()
    path = tmp_path / "archive" / "file.mdf"
    old = measurement(path)
    (tmp_path / "archive" / "raw.bin").write_bytes(old.tobytes())
    replace(path, lambda h5, _: h5.create_dataset(DATA, old.shape, "f4", external=[("raw.bin", 0, old.nbytes)]))
    (tmp_path / "link.mdf").symlink_to(path)
    with MeasurementFile(tmp_path / "link.mdf") as file:
        np.testing.assert_allclose(next(file.frames()), np.fft.rfft(old[:6, 0]), rtol=1e-5, atol=1e-5)
