"""The command line end to end, and all kinds of bad input: exit code 2 and one line, no traceback, no half a file."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from mdf_files import change, convert
from typer.testing import CliRunner

from mpi_fast.bundle import Bundle, sealed
from mpi_fast.cli import app
from mpi_fast.mdf import read_reconstruction, validate

QUICK = "--evaluations", "1", "--threads", "1"
DATA = "/measurement/data"


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def succeed(*arguments):
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def fail(*arguments, code=2):
    """Run a command that must fail as a user likes it, and return its one line."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Simulated files, and a calibration saved from them; tests must not change them."""
    folder = tmp_path_factory.mktemp("simulated")
    succeed("simulate", folder, "--frames", 3, "--background-frames", 4, "--snr", 30, "--phantoms", "tumours,shape")
    succeed("calibrate", folder / "system-matrix.mdf", "-o", folder / "scanner.h5", "--json", folder / "calibrate.json")
    return folder


@pytest.fixture
def files(made, tmp_path):
    """A copy of them to damage."""
    return Path(shutil.copytree(made, tmp_path / "files"))


def reconstruct(files, *arguments, fails=False):
    command = "reconstruct", files / "measurement.mdf", "--calibration", files / "scanner.h5", *QUICK, *arguments
    return fail(*command) if fails else succeed(*command)


# -- what works -------------------------------------------------------------------------------------------------------


def test_simulate_writes_valid_files_and_the_truth(made):
    for name in ("system-matrix.mdf", "measurement.mdf", "truth.mdf"):
        assert validate(made / name) == []
    assert read_reconstruction(made / "truth.mdf").shape == (3, 19, 19)


def test_simulate_repeats_itself(made, tmp_path):
    options = "--frames", 3, "--background-frames", 4, "--snr", 30, "--phantoms", "tumours,shape"
    for seed in (0, 1):
        succeed("simulate", tmp_path, *options, "--seed", seed)
        for name in ("system-matrix.mdf", "measurement.mdf"):
            with h5py.File(made / name) as first, h5py.File(tmp_path / name) as second:
                assert np.array_equal(first[DATA][()], second[DATA][()]) == (seed == 0)


@pytest.mark.parametrize("noise", ["coloured", "spiky", "drift"])
def test_simulate_spectra_with_all_kinds_of_noise(tmp_path, noise):
    measurement = tmp_path / "m.mdf"
    succeed("simulate", "--measurement", measurement, "--spectra", "--noise", noise, "--frames", 2, "--grid", "5x4")
    assert validate(measurement) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.mdf", "m.truth.mdf"]


def test_calibrate_says_what_it_selected(made):
    content = json.loads((made / "calibrate.json").read_text())
    assert content["grid"] == "19 x 19 voxels, 38 x 38 mm"
    assert content["rank R"] > 50
    assert float(content["best SNR"]) > 5


def test_calibrate_options_reach_the_library(made):
    narrow = "--min-frequency", 100e3, "--max-frequency", 300e3, "--channels", "0,1", "--snr-threshold", 3
    shown = succeed("calibrate", made / "system-matrix.mdf", *narrow, "--max-order", 12).stdout
    assert "100 " not in shown.split("frequencies")[1].split("kHz")[0].split("to")[1]
    assert "2: 0" in shown


def test_reconstruct_finds_the_phantoms(files):
    shown = reconstruct(files, "--png", files / "reco.png", "--json", files / "reco.json").stdout
    output = files / "measurement.reco.mdf"
    assert validate(output) == []
    image, truth = read_reconstruction(output), read_reconstruction(files / "truth.mdf")
    assert read_reconstruction(output, "_std").shape == image.shape == truth.shape
    for found, expected in zip(image, truth, strict=True):
        assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.8
    assert (files / "reco.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((files / "reco.json").read_text())
    assert content["frames"] == 3
    assert content["provenance"]["evaluations"] == 1
    assert "SNR" in shown


def test_reconstruct_writes_several_formats_at_once(files):
    shown = reconstruct(
        files, "-o", files / "a.npz", "-o", files / "b.mdf", "--png", files / "c.png", "--frames", "1:3"
    )
    assert all(name in shown.stdout for name in ("a.npz", "b.mdf", "c.png"))
    arrays = np.load(files / "a.npz")
    np.testing.assert_array_equal(arrays["image"], read_reconstruction(files / "b.mdf"))
    np.testing.assert_allclose(arrays["time"], 652.8e-6 * np.array([1, 2]))
    assert (files / "c.png").read_bytes().startswith(b"\x89PNG")
    assert not (files / "measurement.reco.mdf").exists()


def test_convert_makes_the_files_that_reconstruct_makes(files):
    boxes = "--region", "left=:0,:", "--region", "all=:,:"
    reconstruct(files, "-o", files / "a.mdf", "-o", files / "a.nii.gz", "-o", files / "a.csv", *boxes)
    shown = succeed("convert", files / "a.mdf", "-o", files / "b.nii.gz", "-o", files / "b.csv", *boxes).stdout
    assert all(name in shown for name in ("b.nii.gz", "b.std.nii.gz", "b.csv"))
    for name in (".csv", ".nii.gz", ".std.nii.gz"):
        first, second = ((files / f"{one}{name}").read_bytes() for one in "ab")
        if name != ".csv":
            first, second = gzip.decompress(first), gzip.decompress(second)
        assert first == second
    assert (files / "a.csv").read_text().count("\n") == 1 + 3 * 2


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


def test_reconstruct_takes_a_system_matrix_as_well(files):
    reconstruct(files)
    direct = files / "direct.mdf"
    succeed("reconstruct", files / "measurement.mdf", "-c", files / "system-matrix.mdf", "-o", direct, *QUICK)
    saved = read_reconstruction(files / "measurement.reco.mdf")
    np.testing.assert_allclose(read_reconstruction(direct), saved, rtol=1e-4, atol=1e-5)


def test_reconstruct_selects_and_averages_frames(files):
    reconstruct(files)
    everything = read_reconstruction(files / "measurement.reco.mdf")
    reconstruct(files, "--frames", "1:", "-o", files / "part.mdf")
    np.testing.assert_allclose(read_reconstruction(files / "part.mdf"), everything[1:], rtol=1e-4, atol=1e-5)
    reconstruct(files, "--average", "all", "--periods", "0:1", "-o", files / "mean.mdf")
    assert len(read_reconstruction(files / "mean.mdf")) == 1


def test_reconstruct_says_when_no_background_is_subtracted(files):
    assert "note: background not subtracted, as asked" in reconstruct(files, "--no-background").stderr
    succeed("simulate", "--measurement", files / "measurement.mdf", "--background-frames", 0, "--frames", 1)
    assert "corrected already" in reconstruct(files).stderr


def test_an_empty_frame_comes_out_empty(files):
    change(files / "measurement.mdf", {"/measurement/isBackgroundFrame": np.zeros(7, np.int8)})
    convert(files / "measurement.mdf", DATA, np.zeros_like)
    shown = reconstruct(files, "--json", files / "empty.json").stdout
    assert "no signal" in shown
    assert read_reconstruction(files / "measurement.reco.mdf").max() == 0
    assert json.loads((files / "empty.json").read_text())["mean_snr_db"] is None


def test_info_knows_every_kind_of_file(made, tmp_path):
    bundle = Bundle.open().path
    files = [made / name for name in ("system-matrix.mdf", "measurement.mdf", "truth.mdf", "scanner.h5")]
    succeed("info", *files, bundle, "--json", tmp_path / "info.json")
    kinds = [facts["kind"] for facts in json.loads((tmp_path / "info.json").read_text()).values()]
    assert [kind.rsplit(" ", 1)[-1] for kind in kinds] == [
        "matrix",
        "measurement",
        "reconstruction",
        "mpi-fast",
        "bundle",
    ]


def test_info_shows_the_machine_and_the_default_model():
    shown = succeed("info").stdout
    assert "numpy" in shown
    assert "hash checked" in shown


def test_bench_prints_and_writes_its_figures(tmp_path):
    succeed("bench", "--frames", "1,2", "--repeats", 2, *QUICK, "--json", tmp_path / "bench.json")
    content = json.loads((tmp_path / "bench.json").read_text())
    assert [one["frames"] for one in content["results"]] == [1, 2]
    assert all(one["p5_ms"] <= one["median_ms"] <= one["p95_ms"] for one in content["results"])


def test_demo_draws_and_writes_its_figures(tmp_path, monkeypatch):
    monkeypatch.setattr("mpi_fast.cli.trial.COUNT", 1)
    succeed("demo", "-o", tmp_path / "demo.png", *QUICK, "--json", tmp_path / "demo.json")
    figures = json.loads((tmp_path / "demo.json").read_text())["figures"]
    assert [(one["snr_db"], one["method"]) for one in figures] == [
        (15.0, "ART"),
        (15.0, "mpi-fast"),
        (25.0, "ART"),
        (25.0, "mpi-fast"),
    ]
    for ours in figures[1::2]:
        assert ours["snr_found_db"] == pytest.approx(ours["weighted_snr_db"], abs=1.0)
    assert (tmp_path / "demo.png").stat().st_size > 20_000


def test_demo_without_matplotlib_prints_its_table(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr("mpi_fast.cli.trial.COUNT", 1)
    result = succeed("demo", "-o", tmp_path / "demo.png", *QUICK)
    assert "pip install 'mpi-fast[plots]'" in result.stderr
    assert "PSNR" in result.stdout
    assert not list(tmp_path.iterdir())


def test_the_command_line_starts_without_what_is_slow_to_import():
    heavy = "h5py", "onnxruntime", "matplotlib", "torch", "scipy"
    code = f"import sys, mpi_fast.cli; sys.exit(' '.join(name for name in {heavy} if name in sys.modules) or 0)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version():
    assert succeed("--version").stdout.startswith("mpi-fast 0.")


# -- what does not: signals and files ---------------------------------------------------------------------------------


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


# -- what does not: options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--frames", "5:9"), "selects nothing"),
        (("--frames", "a:b"), "expected a range"),
        (("--frames", "2:1"), "empty range"),
        (("--periods", "3:4"), "periods"),
        (("--average", "0"), "--average 0"),
        (("--average", "9"), "average=9"),
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


def test_interrupted(files, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("mpi_fast.reconstructor.Reconstructor.__call__", interrupt)
    before = sorted(files.iterdir())
    assert fail("reconstruct", files / MEASUREMENT, "-c", files / SAVED, code=130) == "interrupted\n"
    assert sorted(files.iterdir()) == before
