"""The files and messages of every command."""

import gzip
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from command_line import QUICK, reconstruct, succeed
from mdf_files import DATA, change, convert

from mpi_fast.bundle import Bundle
from mpi_fast.mdf import read_reconstruction, validate


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
