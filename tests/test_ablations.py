"""`bench/ablations.py`: changes last for one call, and the tables show the results."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import mpi_fast.reconstructor
from mpi_fast.calibration import Calibration
from mpi_fast.comparison import SCANNERS, Setup, frames, measured
from mpi_fast.limits import EVALUATIONS
from mpi_fast.metrics import psnr
from mpi_fast.uncertainty import half_width

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import ablations

SETUP = Setup(phantoms=3)


def of(title):
    """The rows of a table by their names."""
    (group,) = [one for one in ablations.groups() if one.title == title]
    return {one.name: one for one in group.variants}


def test_every_table_has_one_default_which_is_the_product():
    for group in ablations.groups():
        (usual,) = [one for one in group.variants if one.default]
        assert usual.build is ablations.default_reconstructor
        assert usual.evaluations == EVALUATIONS


def test_the_last_block_makes_about_the_image_and_the_first_a_worse_one():
    calibration = measured(SCANNERS["in"])[1]
    signals, truth = frames(SETUP, 25.0)
    image = ablations.default_reconstructor(calibration)(signals).image
    blocks = ablations.trained().config.blocks
    first, last = (ablations.after_block(count, calibration)(signals).image for count in (1, blocks))
    assert psnr(last, truth).mean() == pytest.approx(psnr(image, truth).mean(), abs=1.5)
    assert psnr(first, truth).mean() < psnr(last, truth).mean() - 5


def test_changes_reach_the_reconstruction_and_end_with_it():
    before = Calibration.reduce, mpi_fast.reconstructor.consistent
    known, estimated = of("Noise level")["known"], of("Noise level")["estimated from the frame"]
    told, usual = (ablations.assess(one, SETUP, 15.0)["psnr"] for one in (known, estimated))
    assert (np.abs(told - usual) > 1e-6).all()
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mpi_fast.reconstructor, "consistent", lambda *arguments: asked.append(0) or arguments[2])
        ablations.assess(estimated, SETUP, 15.0)
        ablations.assess(of("Images and signals")["never corrected"], SETUP, 15.0)
    assert len(asked) == 1
    assert (Calibration.reduce, mpi_fast.reconstructor.consistent) == before


def test_intervals_of_normal_errors_differ_in_their_width_alone():
    calibration = measured(SCANNERS["in"])[1]
    signals, _ = frames(SETUP, 15.0)
    own, normal = (
        build(calibration)(signals) for build in (ablations.default_reconstructor, ablations.with_normal_intervals)
    )
    np.testing.assert_array_equal(own.image, normal.image)
    np.testing.assert_allclose(half_width(normal.std, normal.quantiles, 0.95), 1.96 * own.std, rtol=1e-3)
    assert normal.quantiles is None
    assert own.quantiles is not None


def test_true_noise_is_what_was_added_to_the_frames():
    calibration = measured(SCANNERS["in"])[1]
    signals, _ = frames(SETUP, 5.0)
    estimated = calibration.reduce(calibration.rows(signals)).noise
    np.testing.assert_allclose(ablations.true_noise(SETUP, 5.0), estimated, rtol=0.05)


def test_the_table_marks_the_default_and_what_is_beyond_chance(tmp_path, monkeypatch, capsys):
    def few():
        usual = ablations.Variant("usual", default=True)
        return [ablations.Group("Table", "Caption.", (usual, ablations.Variant("cut", blocks_of(1), evaluations=3)))]

    def blocks_of(count):
        return lambda calibration: ablations.after_block(count, calibration)

    monkeypatch.setattr(ablations, "groups", few)
    monkeypatch.setattr(ablations, "SNRS", (25.0,))
    files = tmp_path / "a.json", tmp_path / "a.md"
    monkeypatch.setattr(
        "sys.argv", ["ablations.py", "--frames", "7", "--json", str(files[0]), "--markdown", str(files[1])]
    )
    ablations.main()
    ((usual, cut),) = [one["rows"] for one in json.loads(files[0].read_text())["tables"]]
    found = usual["results"]["25 dB"]
    assert {"psnr", "ssim", "coverage", "psnr_gain", "psnr_gain_interval"} == set(found)
    assert cut["results"]["25 dB"]["psnr_gain"] == pytest.approx(cut["results"]["25 dB"]["psnr"] - found["psnr"])
    lines = files[1].read_text().splitlines()
    assert capsys.readouterr().out.strip().splitlines() == lines
    assert lines[-2].startswith(f"| **usual, the default** | 2 | **{found['psnr']:.2f}** / ")
    assert lines[-1].startswith(f"| cut | 3 | {cut['results']['25 dB']['psnr']:.2f}\\* / ")
