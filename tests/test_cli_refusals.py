"""Bad input on the command line gives exit code 2 and one line, no traceback and no incomplete file."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from command_line import QUICK, fail, reconstruct, succeed
from mdf_files import DATA, change, convert

from mpi_fast.bundle import Bundle, sealed
from mpi_fast.mdf import validate

# -- signals and files ------------------------------------------------------------------------------------------------


def nan(values):
    values[1, 0, 0, 5] = np.nan
    return values


def silence_channel(values):
    return values[:, :, :2]


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path):
    path.unlink()
    with h5py.File(path, "w") as h5:
        h5["picture"] = np.zeros(3)


def text(path):
    path.write_text("not HDF5")


def folder(path):
    path.unlink()
    path.mkdir()


MATRIX, MEASUREMENT, SAVED = "system-matrix.mdf", "measurement.mdf", "scanner.h5"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: convert(path, DATA, silence_channel), "C = 3 channels"),
        (
            lambda path: change(path, {"/acquisition/receiver/bandwidth": 1.0e6}),
            "1632 samples last 816 us, but a cycle of the drive field is 652.8 us",
        ),
        (
            lambda path: change(
                path,
                {
                    "/acquisition/receiver/bandwidth": 1.0e6,
                    "/acquisition/drivefield/baseFrequency": 2.0e6,
                    "/acquisition/drivefield/cycle": 816e-6,
                },
            ),
            "bandwidth 1 MHz, but the calibration has 1.25",
        ),
        (
            lambda path: change(path, {"/acquisition/drivefield/strength": [[[0.010], [0.012]]]}),
            "10 x 12 mT, but the cal",
        ),
        (lambda path: change(path, {"/acquisition/drivefield/divider": [[96], [102]]}), "dividers 96 x 102"),
        (lambda path: change(path, {"/measurement/isTransferFunctionCorrected": np.int8(1)}), "corrected yes, but"),
        (truncate, "truncated"),
        (foreign, "not MDF"),
        (text, "not an HDF5 file"),
        (folder, "is a folder"),
        (Path.unlink, "no such file"),
        (lambda path: shutil.copy(path.with_name(MATRIX), path), "this is a system matrix"),
    ],
)
def test_a_bad_measurement(files, damage, message):
    damage(files / MEASUREMENT)
    before = sorted(files.iterdir())
    assert message in reconstruct(files, fails=True)
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("damage", [truncate, foreign, text, folder, Path.unlink])
@pytest.mark.parametrize("name", [MATRIX, SAVED])
def test_a_bad_calibration(files, damage, name):
    damage(files / name)
    assert name in fail("reconstruct", files / MEASUREMENT, "-c", files / name)
    if name == MATRIX:
        assert name in fail("calibrate", files / name, "-o", files / "new.h5")
        assert not (files / "new.h5").exists()
    if damage is foreign:
        assert "picture" in succeed("info", files / name).output  # HDF5 is described, whoever wrote it
    else:
        assert name in fail("info", files / name)


def test_a_matrix_with_nan(files):
    convert(files / MATRIX, DATA, lambda data: data * np.nan)
    assert "NaN" in fail("calibrate", files / MATRIX)


def test_a_frequency_selection_that_lacks_what_is_needed(files):
    convert(files / MEASUREMENT, DATA, lambda data: np.fft.rfft(data)[..., :60].astype(np.complex64))
    flags = {f"/measurement/is{name}": np.int8(1) for name in ("FourierTransformed", "FrequencySelection")}
    change(files / MEASUREMENT, flags | {"/measurement/frequencySelection": np.arange(1, 61)})
    assert "holds a selection of frequencies, without" in reconstruct(files, fails=True)


def test_a_broken_bundle(files):
    model = Path(shutil.copytree(Bundle.open().path, files / "model"))
    for damaged in ("plane.onnx", "volume.onnx"):
        content = (model / damaged).read_bytes()
        (model / damaged).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    for command in (("info", model), ("reconstruct", files / MEASUREMENT, "-c", files / SAVED, "--model", model)):
        assert "SHA-256 is not the manifest's" in fail(*command)
    (model / "manifest.json").write_text("{")
    assert "manifest" in fail("info", model)
    assert not (files / "measurement.reco.mdf").exists()


def test_a_bundle_that_describes_itself_wrongly(files):
    model = Path(shutil.copytree(Bundle.open().path, files / "model"))
    manifest = json.loads((model / "manifest.json").read_text())
    for damaged in ({"parity": [{"relative": "much"}]}, {"frozen": 3}, {"statistics": {"plane.onnx": None}}):
        (model / "manifest.json").write_text(json.dumps(sealed(manifest | damaged)))
        assert "damaged" in fail("info", model)


# -- options ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--frames", "5:9"), "selects nothing"),
        (("--frames", "a:b"), "expected a range"),
        (("--frames", "2:1"), "empty range"),
        (("--periods", "3:4"), "periods"),
        (("--average", "0"), "--average 0"),
        (("--average", "9"), "average=9"),
        (("--frames", "9" * 5000), "--frames 9"),
        (("--periods", f"0:{'9' * 5000}"), "--periods 0:9"),
        (("--average", "9" * 5000), "--average 9"),
        (("--plane", "z=" + "9" * 5000), "--plane z=9"),
        (("--plane", "w=1"), "--plane w=1"),
        (("--plane", "z=0"), "calibrated already"),
        (("--engine", "magic"), "engine 'magic'"),
        (("--model", "nowhere"), "not a model bundle"),
        (("-o", "nowhere/reco.mdf"), "nowhere does not exist"),
        (("--png", "picture.bmp"), "picture.bmp"),
        (("--json", "."), "it is a folder"),
    ],
)
def test_bad_options_of_reconstruct(files, options, message):
    before = sorted(files.iterdir())
    assert message in reconstruct(files, *options, fails=True)
    assert sorted(files.iterdir()) == before


def test_no_output_replaces_an_input(files):
    for option in ("-o", "--png", "--json"):
        assert "is an input" in reconstruct(files, option, files / MEASUREMENT, fails=True)
    assert "is an input" in fail("calibrate", files / MATRIX, "-o", files / MATRIX)
    assert validate(files / MEASUREMENT) == []


def test_no_output_replaces_the_files_that_options_name(files, monkeypatch):
    monkeypatch.chdir(files)
    Path(shutil.copytree(Bundle.open().path, "model"))
    Path("roi.npy").write_bytes(b"labels")
    before = {path: path.read_bytes() for path in files.rglob("*") if path.is_file()}
    labelled = "-o", "x.csv", "--region", "roi.npy"
    for command in (
        ("reconstruct", MEASUREMENT, "-c", SAVED, *labelled, "-o", "roi.npy"),
        ("convert", "truth.mdf", *labelled, "-o", "roi.npy"),
        *[
            (*command, "--model", "model", "--json", f"model/{name}")
            for command in (("reconstruct", MEASUREMENT, "-c", SAVED), ("bench",), ("demo",), ("compare",))
            for name in ("plane.onnx", "manifest.json")
        ],
        ("compare", "--model", "dernet.pt", "--csv", "dernet.pt"),
    ):
        assert "is an input" in fail(*command)
    assert {path: path.read_bytes() for path in files.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--grid", "19"), "rows x columns"),
        (("--drive", "strong"), "--drive strong"),
        (("--core", "-1"), "core_diameter"),
        (("--voxel", "0"), "voxel_size"),
        (("--gradient", "0"), "gradient"),
        (("--noise", "pink"), "--noise pink"),
        (("--snr", "nan"), "SNR nan"),
        (("--calibration-snr", "inf"), "expected a number"),
        (("--snr", "-7000"), "SNR -7000.0 dB: expected a number from -300 to 300"),
        (("--calibration-snr", "-1e9"), "calibration SNR -1000000000.0 dB"),
        (("--phantoms", "unicorns"), "unicorns"),
    ],
)
def test_bad_options_of_simulate(tmp_path, options, message):
    assert message in fail("simulate", tmp_path, "--frames", 1, *options)
    assert not list(tmp_path.iterdir())


def test_bad_options_of_the_others(files):
    assert "nothing to write" in fail("simulate")
    assert "channels [7]" in fail("calibrate", files / MATRIX, "--channels", "7")
    assert "lower a threshold" in fail("calibrate", files / MATRIX, "--snr-threshold", 1e9)
    assert "there is no plane z=9" in fail("calibrate", files / MATRIX, "--plane", "z=9")
    assert "--frames 0" in fail("bench", "--frames", "0")
    assert "--minutes" in fail("train", "--minutes", 0)
    for_deq = "train", "--minutes", 1, "--method", "deq", "--grid"
    assert "--grid" in fail(*for_deq, "big")
    assert "--grid 1x1: expected at least 2 x 2" in fail(*for_deq, "1x1")
    assert "of at most 1024" in fail(*for_deq, "9999x9999")
    assert "to 1000000000, with commas" in fail("calibrate", files / MATRIX, "--channels", 10**30)
    assert "from 1 to 65536" in fail("bench", "--frames", 10**9)
    assert "--learning-rate" in fail("train", "--minutes", 1, "--learning-rate", 0)
    assert "posterior, dernet, deq" in fail("train", "--minutes", 1, "--method", "magic")
    assert "many grids" in fail("train", "--minutes", 1, "--method", "posterior", "--grid", "8x8")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "nothing to write: expected -o and a name that ends in .mdf, .nii"),
        (("-o", "x.dcm"), "x.dcm: nothing is written under such a name"),
        (("-o", "x.mdf"), "is MDF already; copy the file"),
        (("-o", "x.npz", "--region", "a=:,:"), "--region: of tables: name an output that ends in .csv, too"),
        (("-o", "x.csv", "--region", "a"), "expected NAME=X0:X1,Y0:Y1"),
        (("-o", "x.csv", "--region", "a=90:,:"), "no voxel there: along x their middles lie from -18 to 18 mm"),
        (
            (
                "-o",
                "truth.mdf",
            ),
            "is an input or another output",
        ),
    ],
)
def test_bad_options_of_convert(files, monkeypatch, options, message):
    monkeypatch.chdir(files)
    before = sorted(path.name for path in files.iterdir())
    assert message in fail("convert", "truth.mdf", *options)
    assert sorted(path.name for path in files.iterdir()) == before


def test_reconstruct_refuses_formats_it_does_not_know_before_it_reads_anything(files):
    (files / "measurement.mdf").write_text("not even read")
    message = reconstruct(files, "-o", files / "x.dcm", fails=True)
    assert "x.dcm: nothing is written under such a name; expected one that ends in .mdf, .nii, .nii.gz" in message
    assert not (files / "x.dcm").exists()


def test_interrupted(files, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mpi_fast.reconstructor.Reconstructor.__call__", interrupt)
    before = sorted(files.iterdir())
    assert fail("reconstruct", files / MEASUREMENT, "-c", files / SAVED, code=130) == "interrupted\n"
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("name", [".", "", "/"])
@pytest.mark.parametrize("output", [(), ("-o", "x.npz")])
def test_folders_without_a_name_are_no_measurements(files, monkeypatch, name, output):
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    message = fail("reconstruct", name, "-c", SAVED, *QUICK, *output)
    assert "this is a folder" in message or "no permission to write in /" in message
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize(
    ("command", "option", "kind"),
    [
        *[
            (("calibrate", MATRIX), option, "of arrays; this input is MDF")
            for option in (
                ("--field-of-view", "40"),
                ("--empty", "0"),
                ("--axis", "0"),
                ("--fastest", "x"),
                ("--frequencies", "f"),
                ("--sampling-rate", "1e6"),
            )
        ],
        *[
            (("reconstruct", MEASUREMENT, "-c", SAVED), option, "of arrays; this input is MDF")
            for option in (("--empty", "0"), ("--axis", "0"))
        ],
        *[
            (("reconstruct", "b.npy", "-c", SAVED), option, "of MDF files; this input is an array")
            for option in (("--periods", "0:1"), ("--average", "all"), ("--no-background",))
        ],
    ],
)
def test_options_of_another_kind_of_input(files, monkeypatch, command, option, kind):
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    message = fail(*command, *option)
    assert kind in message
    assert option[0].removeprefix("--no-").removeprefix("--") in message
    assert sorted(files.iterdir()) == before
