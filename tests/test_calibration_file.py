"""Damaged files of calibrations give one clear error, or the calibration that was saved."""

import json
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

from mpi_fast.calibration import Calibration
from mpi_fast.calibration_fields import FIELDS
from mpi_fast.calibration_file import HEADER, MAGIC, seal
from mpi_fast.errors import FileFormatError
from mpi_fast.mdf import access, rehearsal

ARRAYS = "selection", "frequencies", "matrix", "weights", "singular_values", "basis", "projection"


@pytest.fixture(scope="module")
def small() -> Calibration:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((2, 9, 12)) + 1j * rng.standard_normal((2, 9, 12))
    return Calibration.from_arrays(matrix, 3e4 * np.arange(9), (3, 4), (0.03, 0.04), facts={"tracer": "Perimag"})


@pytest.fixture
def saved(tmp_path, small):
    small.save(tmp_path / "scanner.h5")
    return tmp_path / "scanner.h5"


def edit(path, values, sealed=True):
    """Replace datasets, or with None delete them, and seal the file as its writer would."""
    with h5py.File(path, "r+") as file:
        for name, value in values.items():
            del file[name]
            if value is not None:
                file[name] = value
    if sealed:
        seal(path)


def unsealed(path, calibration, version=1):
    """A file in the form of release 0.1."""
    with h5py.File(path, "w") as file:
        file["format"], file["kind"], file["facts"] = version, "mpi-fast calibration", json.dumps(calibration.facts)
        for field in FIELDS:
            file[field.name] = getattr(calibration, field.name)


def assert_same(found, expected):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
        assert getattr(found, name).dtype == getattr(expected, name).dtype
    assert (found.grid, found.field_of_view, found.facts) == (expected.grid, expected.field_of_view, expected.facts)


def test_what_is_loaded_is_what_was_saved(saved, small):
    assert_same(Calibration.load(saved), small)
    assert_same(Calibration.open(saved), small)
    with h5py.File(saved) as file:  # and any HDF5 library reads it
        np.testing.assert_array_equal(file["basis"][()], small.basis)


def test_files_of_the_first_format_are_read(tmp_path, small):
    unsealed(tmp_path / "old.h5", small)
    assert_same(Calibration.open(tmp_path / "old.h5"), small)


def test_every_flipped_bit_is_seen(saved):
    """Flips one bit in each byte, except padding of the header."""
    raw = saved.read_bytes()
    rng = np.random.default_rng(1)
    places = [*range(len(MAGIC) + 64), *rng.integers(HEADER, len(raw), 300).tolist()]
    for place in places:
        damaged = bytearray(raw)
        damaged[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=r"scanner\.h5"):
            Calibration.load(saved)


def test_flipped_bits_of_the_first_format_never_change_what_frames_come_to(tmp_path, small):
    path = tmp_path / "old.h5"
    unsealed(path, small)
    raw, rng, refused = path.read_bytes(), np.random.default_rng(2), 0
    rows = (np.eye(12) @ small.matrix.T).astype(np.complex64)
    expected = (small.reduce(rows).y / small.singular_values) @ small.basis.T
    for place in rng.integers(0, len(raw), 300):
        damaged = bytearray(raw)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = Calibration.load(path)
        except FileFormatError:
            refused += 1
            continue
        # Shrunk singular values cannot be checked with the matrix, so damage to these few bytes is not detected.
        image = (found.reduce(rows).y / small.singular_values) @ found.basis.T
        np.testing.assert_allclose(image, expected, atol=0.05)
    assert refused > 20


@pytest.mark.parametrize("size", [0, 10, HEADER, 2000, -1])
def test_files_cut_short(saved, size):
    saved.write_bytes(saved.read_bytes()[:size])
    with pytest.raises(FileFormatError, match=r"scanner\.h5"):
        Calibration.open(saved)


def test_a_file_that_was_edited_says_so(saved):
    edit(saved, {"weights": np.ones(12)}, sealed=False)
    with pytest.raises(FileFormatError, match=r"SHA-256.*damaged, cut short or was changed"):
        Calibration.load(saved)


def test_a_header_that_is_gone(saved):
    saved.write_bytes(bytes(HEADER) + saved.read_bytes()[HEADER:])
    with pytest.raises(FileFormatError, match="format 2 without its header"):
        Calibration.load(saved)


def rotated(basis):
    """A basis whose vectors have unit length but are not orthogonal."""
    changed = basis.copy()
    changed[:, 1] = changed[:, 0]
    return changed


def with_nan(array):
    changed = array.copy()
    changed.flat[3] = np.nan
    return changed


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("grid", lambda grid: np.array([3, 5]), "matrix: its shape"),
        ("grid", lambda grid: np.array([-3, -4]), r"grid \(-3, -4\): .*positive whole numbers"),
        ("grid", lambda grid: np.array([1, 2**16]), r"grid \(1, 65536\): .*up to 65535"),
        ("grid", lambda grid: np.array([3.0, 4.0]), "grid: is float64"),
        *[
            (
                "field_of_view",
                lambda size, bad=bad: np.array([bad, 0.04]),
                "field of view .*: expected two lengths in m",
            )
            for bad in (0.0, -0.03, 30.0, np.nan, np.inf)
        ],
        ("selection", lambda mask: ~mask, "its shape"),
        ("selection", lambda mask: mask.astype(np.int8), "selection: is int8"),
        ("matrix", with_nan, "matrix: NaN or Inf"),
        ("matrix", lambda matrix: 0.9 * matrix, "singular_values: they are not those of the matrix"),
        ("matrix", lambda matrix: matrix[::-1], "matrix: it is not the one that was reduced"),
        ("matrix", lambda matrix: matrix.real, "matrix: is float32"),
        ("weights", lambda weights: -weights, "weights: positive"),
        ("weights", lambda weights: weights * np.linspace(1, 2, len(weights)), "projection: its rows"),
        ("singular_values", lambda s: s[::-1], "singular_values: they are not those"),
        ("singular_values", lambda s: 0 * s, "singular_values: positive"),
        ("singular_values", lambda s: s[:-1], "basis: its shape"),
        ("basis", rotated, "basis: its columns are not orthonormal"),
        ("basis", lambda basis: basis.T[:, :9], "basis: its shape"),
        ("projection", lambda p: 2 * p, "projection: its rows are not orthonormal"),
        ("facts", lambda facts: np.bytes_("[1]"), "facts: an object"),
        ("facts", lambda facts: np.bytes_("{"), "facts: Expecting"),
        *[
            ("facts", lambda facts, odd=odd: np.bytes_(json.dumps(odd)), message)
            for odd, message in [
                ({"best_snr": "x"}, "facts: best_snr is 'x'; a number was expected"),
                ({"background_frames": -1}, "facts: background_frames is -1"),
                ({"normal": 7, "extent": [1, 1, 1], "center": [0, 0, 0]}, "facts: normal is 7; x, y, z or nothing"),
                ({"normal": "z", "extent": [1, 1], "center": [0, 0, 0]}, "facts: extent is .1, 1.; three numbers"),
                ({"normal": "z", "extent": [1, 1, 1]}, "facts: center is missing"),
            ]
        ],
        ("facts", lambda facts: np.zeros(1 << 20, np.int8), "facts: is int8 .1048576,.; a text was expected"),
        ("facts", lambda facts: np.bytes_("[" * 100_000), "facts: "),
        ("facts", lambda facts: np.bytes_(b'{"a": "\xff"}'), "facts: "),
        ("format", lambda version: 99, "format 99, this version reads up to 2"),
        ("format", lambda version: "two", "format: is object"),
        ("kind", lambda kind: "something else", "kind: expected"),
        *[(name, lambda array: None, f"{name}: is missing") for name in (*ARRAYS, "grid", "field_of_view")],
    ],
)
def test_contents_that_make_no_calibration(saved, name, change, message):
    with h5py.File(saved) as file:
        value = change(file[name][()])
    edit(saved, {name: value})
    with pytest.raises(FileFormatError, match=f"scanner\\.h5.*{message}"):
        Calibration.load(saved)


@pytest.mark.parametrize("how", ["group", "dangling", "external", "huge", "virtual"])
def test_arrays_that_the_file_does_not_hold(saved, tmp_path, how):
    other = tmp_path / "other.h5"
    shutil.copy(saved, other)
    with h5py.File(saved, "r+") as file:
        del file["basis"]
        if how == "group":
            file.create_group("basis")
        elif how == "dangling":
            file["basis"] = h5py.SoftLink("/nowhere")
        elif how == "external":
            file.create_dataset("basis", (12, 9), "f4", external=[(str(other), 0, h5py.h5f.UNLIMITED)])
        elif how == "huge":
            file.create_dataset("basis", (1 << 40, 9), "f4", chunks=(64, 9))
        else:
            layout = h5py.VirtualLayout((12, 9), "f4")
            layout[:] = h5py.VirtualSource(str(other), "basis", (12, 9))
            file.create_virtual_dataset("basis", layout)
    seal(saved)
    with pytest.raises(FileFormatError, match=r"basis: (is a link|is no dataset|declares)"):
        Calibration.load(saved)


@pytest.mark.parametrize("name", ["facts", "stated", "kind", "basis"])
def test_links_are_not_followed(saved, tmp_path, name):
    with h5py.File(tmp_path / "other.h5", "w") as other, h5py.File(saved, "r+") as file:
        file.copy(name, other)
        del file[name]
        file[name] = h5py.ExternalLink(str(tmp_path / "other.h5"), name)
    seal(saved)
    with pytest.raises(FileFormatError, match=f"{name}: is a link; a dataset was expected"):
        Calibration.load(saved)


@pytest.mark.parametrize("name", ["facts", "stated", "kind"])
def test_texts_that_the_file_does_not_hold(saved, name):
    with h5py.File(saved, "r+") as file:
        del file[name]
        file.create_dataset(name, (3 << 30,), "u1", chunks=(1 << 20,))
    seal(saved)
    with pytest.raises(FileFormatError, match=f"{name}: declares 3221225472 bytes, and the file holds 0"):
        Calibration.load(saved)


def test_untrusted_calibrations_are_rehearsed(saved, small, monkeypatch):
    run, runs = subprocess.run, []
    monkeypatch.setattr(rehearsal.subprocess, "run", lambda *a, **k: runs.append(a) or run(*a, **k))
    with access(untrusted=True):
        assert_same(Calibration.load(saved), small)
    assert len(runs) == 1
    edit(saved, {"format": 2})  # another state of the file
    crash = [sys.executable, "-c", "import os; os.kill(os.getpid(), 11)"]
    monkeypatch.setattr(rehearsal.subprocess, "run", lambda command, **options: run(crash, **options))
    with access(untrusted=True), pytest.raises(FileFormatError, match=r"crashed HDF5 \(signal 11\)"):
        Calibration.load(saved)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "not a file"),
        (tmp_path, "not a file"),
        (tmp_path / "nothing.h5", "No such file"),
    ):
        with pytest.raises(FileFormatError, match=message):
            Calibration.load(path)
