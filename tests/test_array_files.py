"""Arrays in files of MATLAB and NumPy are read and reconstructed, in every layout."""

import json
import os
import re
import zipfile

import h5py
import numpy as np
import pytest
import scipy.io
from array_signals import GRID, SIZE
from typer.testing import CliRunner

from mpi_fast.arrays import calibrate_array, read_array
from mpi_fast.calibration import Calibration
from mpi_fast.cli import app
from mpi_fast.errors import FileFormatError

# -- files ------------------------------------------------------------------------------------------------------------


def matlab_73(path, name, array):
    """Write a file as MATLAB does: reversed axes, complex numbers as a compound, a header of its own."""
    with h5py.File(path, "w", userblock_size=512) as file:
        stored = array.T
        if array.dtype.kind == "c":
            stored = np.empty(array.T.shape, [("real", "f8"), ("imag", "f8")])
            stored["real"], stored["imag"] = array.T.real, array.T.imag
        chunks = {"chunks": stored.shape, "compression": "gzip"} if stored.size > 1 else {}
        file.create_dataset(name, data=stored, **chunks)
        file[name].attrs["MATLAB_class"] = np.bytes_("double")
        file.create_group("#refs#")
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))


def write(path, array, name="S"):
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{name: array})
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {name: array})
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as file:
            file[name] = array
    return path


@pytest.mark.parametrize("name", ["a.npy", "f.npy", "a.npz", "a.mat", "73.mat", "a.h5"])
@pytest.mark.parametrize("kind", ["complex", "real", "single"])
def test_every_kind_of_file_gives_back_its_array(tmp_path, spectra, name, kind):
    array = {"complex": spectra, "real": spectra.real, "single": spectra.real.astype(">f4")}[kind]
    path = tmp_path / name
    if name == "73.mat":
        matlab_73(path, "S", array)
    else:
        write(path, np.asfortranarray(array) if name == "f.npy" else array)
    found = read_array(path)
    assert found.dtype == (np.complex128 if kind == "complex" else np.float64)
    np.testing.assert_array_equal(found, array)
    if name != "a.npy" and name != "f.npy":
        np.testing.assert_array_equal(read_array(path, "S"), array)


def test_a_variable_of_several(tmp_path, spectra):
    for path in (tmp_path / "a.npz", tmp_path / "a.mat", tmp_path / "a.h5"):
        if path.suffix == ".h5":
            with h5py.File(path, "w") as file:
                file["f"], file["group/S"] = np.arange(3), spectra
            np.testing.assert_array_equal(read_array(path, "group/S"), spectra)
        elif path.suffix == ".npz":
            np.savez(path, f=np.arange(3), S=spectra)
        else:
            scipy.io.savemat(path, {"f": np.arange(3), "S": spectra})
        np.testing.assert_array_equal(read_array(path, "f").reshape(-1), np.arange(3))
        with pytest.raises(FileFormatError, match=r"holds .*f.*: say which with --variable"):
            read_array(path)
        with pytest.raises(FileFormatError, match="T is missing: it holds"):
            read_array(path, "T")


def truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


def huge(path):
    """A header that declares a terabyte."""
    np.lib.format.write_array_header_1_0(
        file := path.open("wb"), {"shape": (1 << 37,), "fortran_order": False, "descr": "<f8"}
    )
    file.close()


def bomb(path):
    with (
        zipfile.ZipFile(path.with_suffix(".npz"), "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("S.npy", "w") as member,
    ):
        member.write(bytes(1000))
    raw = bytearray(path.with_suffix(".npz").read_bytes())
    place = raw.rindex(b"PK\x01\x02") + 24
    raw[place : place + 4] = (0xFFFFFFF0).to_bytes(4, "little")
    path.with_suffix(".npz").write_bytes(raw)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("a.npy", truncated, "a.npy: not a NumPy file, or damaged"),
        ("a.npy", huge, r"float64 \(137438953472,\) in 0 bytes"),
        ("a.npy", lambda path: path.write_bytes(b"hello"), "not a NumPy file"),
        ("a.npy", lambda path: np.save(path, np.array([{}]), allow_pickle=True), "not a NumPy file"),
        ("a.npy", lambda path: np.save(path, np.array(["x"])), "numbers were expected"),
        ("a.npy", lambda path: np.save(path, np.zeros((0, 3))), "numbers were expected"),
        ("a.npy", lambda path: np.save(path, np.array([[1, np.nan]])), r"NaN or Inf in 1 of 2 numbers, .* \(0, 1\)"),
        ("a.npz", truncated, "a.npz: not a NumPy file"),
        ("a.npz", bomb, "unfolds to 4096 MiB; at most 256"),
        ("a.mat", truncated, "a.mat: not a MATLAB file"),
        ("a.mat", lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" * 100), "a.mat: not a MATLAB file"),
        ("a.mat", lambda path: path.write_bytes(b""), "a.mat"),
        ("a.h5", truncated, "a.h5: the file is truncated"),
        ("a.h5", lambda path: path.unlink(), "no such file"),
        ("a.npy", lambda path: path.unlink(), "no such file"),
        ("a.mat", lambda path: path.unlink(), "no such file"),
        ("a.mat", lambda path: (path.unlink(), os.mkfifo(path)), "not a file; expected a MATLAB file"),
        ("a.npz", lambda path: (path.unlink(), os.mkfifo(path)), "not a file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path, spectra, name, damage, message):
    path = write(tmp_path / name, spectra)
    damage(path)
    with pytest.raises(FileFormatError, match=message):
        read_array(path)


def test_a_flipped_bit_in_a_compressed_archive_is_seen(tmp_path, spectra):
    path = write(tmp_path / "a.npz", spectra)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)
    with pytest.raises(FileFormatError, match="damaged"):
        read_array(path)


def test_names_in_capitals(tmp_path, spectra):
    path = write(tmp_path / "a.npy", spectra).rename(tmp_path / "A.NPY")
    np.testing.assert_array_equal(read_array(path), spectra)


def test_a_matlab_file_that_unfolds(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"S": np.zeros((2**13, 2**13))}, do_compression=True)
    with pytest.raises(FileFormatError, match="S unfolds to 512 MiB; at most 256 were expected"):
        read_array(tmp_path / "a.mat")


# -- the command line -------------------------------------------------------------------------------------------------


def run(*arguments, code=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


QUICK = "--evaluations", "1", "--threads", "1"


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_from_arrays_to_images(tmp_path, measured, true_rows, calibration, suffix):
    """Arrays give the images of the MDF files with the same matrix and frames; the last frames have no sample."""
    matrix = np.concatenate([measured.matrix, measured.background], axis=2)
    empty = ",".join(map(str, range(361, 401)))
    whole = {"S": matrix, "f": measured.scanner.frequencies}
    if suffix == ".npz":
        np.savez(tmp_path / "S.npz", **whole)
    elif suffix == ".mat":
        scipy.io.savemat(tmp_path / "S.mat", whole)
    else:
        np.save(tmp_path / "S.npy", matrix)
    where = "--grid", "19x19", "--field-of-view", "38", "--empty", empty
    if suffix != ".npy":  # a single array without frequencies
        where = (*where, "--frequencies", "f", "--variable", "S")
    saved = tmp_path / "scanner.h5"
    run("calibrate", tmp_path / f"S{suffix}", *where, "-o", saved)
    found = Calibration.load(saved)
    if suffix != ".npy":
        np.testing.assert_array_equal(found.selection, calibration.selection)
    image = np.zeros(361)
    image[180:183] = 1.0
    spectrum = (measured.truth @ image)[..., None]
    write(tmp_path / f"b{suffix}", spectrum, "b")
    result = run("reconstruct", tmp_path / f"b{suffix}", "-c", saved, *QUICK, "--json", tmp_path / "b.json")
    output = tmp_path / "b.reco.npz"
    assert f"wrote {output}" in result.stdout.replace("\n", "")
    with np.load(output) as images:
        assert images["image"].shape == images["std"].shape == (1, 19, 19)
        assert np.corrcoef(images["image"].ravel(), image)[0, 1] > 0.8
        assert json.loads(str(images["provenance"]))["measurement"] == f"b{suffix}"
        assert (images["frame"].tolist(), images["flags"].tolist()) == ([0], [0])
        assert images["misfit"].shape == (1, 3)
        assert images["noise_floor"].shape == (1,)
    assert json.loads((tmp_path / "b.json").read_text())["frames"] == 1
    run("reconstruct", tmp_path / f"b{suffix}", "-c", saved, *QUICK, "-o", tmp_path / "images.mat")
    np.testing.assert_allclose(scipy.io.loadmat(tmp_path / "images.mat")["image"], np.load(output)["image"], atol=1e-6)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("calibrate", "S.npy"), "give --grid 8x8 and --field-of-view"),
        (("calibrate", "S.npy", "--grid", "3x4", "--field-of-view", "x"), "--field-of-view x"),
        (("calibrate", "S.npy", "--grid", "3x4", "--field-of-view", "30", "--plane", "z=1"), "--plane"),
        *[
            (("calibrate", "S.npy", "--grid", "3x4", "--field-of-view", size), "field of view .*: expected two lengths")
            for size in ("0", "nan", "30,inf")
        ],
        (("calibrate", "S.npy", "--grid", "3x5", "--field-of-view", "30"), "no axis has the length 15"),
        (("calibrate", "S.npy", "--grid", "3x4", "--field-of-view", "30", "--sampling-rate", "-1"), "--sampling-rate"),
        (("calibrate", "volts.npy", "--grid", "3x4", "--field-of-view", "30"), "over time: give --sampling-rate"),
        (("reconstruct", "S.npy", "-c", "scanner.h5", "--average", "2"), "--average"),
        (("reconstruct", "S.npy", "-c", "scanner.h5", "--frames", "7:90"), "--frames 7:90: S.npy has 12 frames"),
        (("reconstruct", "S.npy", "-c", "scanner.h5", "-o", "x.mdf"), r"written to \.npz"),
        (("reconstruct", "b.npy", "-c", "scanner.h5"), "expected frames of 32"),
    ],
)
def test_command_lines_that_make_no_sense(tmp_path, monkeypatch, spectra, command, message):
    monkeypatch.chdir(tmp_path)
    rows = spectra.reshape(-1, 15)[:, 1:13]
    calibrate_array(rows, GRID, SIZE).save("scanner.h5")
    np.save("S.npy", rows)
    np.save("volts.npy", rows.real)
    np.save("b.npy", rows[:-1])
    result = run(*command, code=2)
    assert result.stderr.count("\n") == 1
    assert re.search(message, result.stderr)
