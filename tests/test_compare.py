"""The comparison gives the same figures for the same seed; bad input of its command gives one line."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from mpi_fast import comparison
from mpi_fast.cli import app
from mpi_fast.cli.options import with_commas
from mpi_fast.comparison import Duel, Setup, assess, compare, duels, frames, interval
from mpi_fast.errors import InputError
from mpi_fast.methods import REGISTRY

METHODS = "tikhonov", "nnls", "posterior"
SNRS = 15.0, 25.0


@pytest.fixture(scope="module")
def setup():
    return Setup(phantoms=7)


@pytest.fixture(scope="module")
def outcomes(setup):
    return compare(setup, METHODS, SNRS)


def run(*arguments):
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_frames_have_the_snr_and_the_same_phantoms_at_each(setup):
    (loud, truth), (_, again) = frames(setup, 60.0), frames(setup, 15.0)
    np.testing.assert_array_equal(truth, again)
    matrix, calibration = comparison.measured(setup.heldout)
    clean = np.tensordot(truth.reshape(len(truth), -1), matrix.truth, axes=(1, 2))[:, calibration.selection]
    noise = frames(setup, 15.0)[0][:, calibration.selection] - clean
    snr = 20 * np.log10(np.linalg.norm(clean, axis=1) / np.linalg.norm(noise, axis=1))
    np.testing.assert_allclose(snr, 15.0, atol=1e-2)
    np.testing.assert_allclose(loud[:, calibration.selection], clean, atol=2e-3 * np.abs(clean).max())


def test_methods_are_tuned_on_other_frames_than_they_are_judged_on(setup):
    test, validation = frames(setup, 15.0)[1], frames(setup, 15.0, comparison.VALIDATION)[1]
    assert len(validation) == setup.validation == 7
    assert not any(np.allclose(one, other) for one in test for other in validation)
    assert [Setup(phantoms=count).validation for count in (8, 42, 64, 1000)] == [7, 14, 21, 21]


def test_every_method_has_every_figure_at_every_snr(outcomes):
    assert list(outcomes) == [(method, snr) for method in METHODS for snr in SNRS]
    for (method, _), one in outcomes.items():
        assert set(comparison.MERITS) <= set(one.merits)
        assert ("coverage_95" in one.merits) == (method == "posterior")
        assert all(values.shape == (7,) and np.isfinite(values).all() for values in one.merits.values())


def test_tuned_parameters_have_an_interior_optimum(outcomes):
    for (method, _), one in outcomes.items():
        assert all(one.tuned.interior.values())
        assert len(one.tuned.interior) == (method != "posterior")
        for name, curve in one.tuned.curves.items():
            assert dict(curve)[one.tuned.parameters[name]] == max(score for _, score in curve) == one.tuned.score


def test_more_signal_gives_better_images(outcomes):
    for method in METHODS:
        assert outcomes[method, 25.0].merits["psnr"].mean() > outcomes[method, 15.0].merits["psnr"].mean()


def test_a_job_repeats_itself(setup, outcomes):
    again = assess(setup, "nnls", 15.0)
    np.testing.assert_array_equal(again.image, outcomes["nnls", 15.0].image)


def test_a_method_without_parameters_is_built_once_and_serves_every_snr(setup, monkeypatch):
    entry, built = REGISTRY["posterior"], []

    def build(*calibration, **options):
        built.append(entry.build(*calibration, **options))
        return built[-1]

    monkeypatch.setitem(REGISTRY, "posterior", replace(entry, build=build))
    comparison._built.cache_clear()
    _, second = (assess(setup, "posterior", snr) for snr in SNRS)
    assert len(built) == 1
    comparison._built.cache_clear()
    np.testing.assert_array_equal(assess(setup, "posterior", SNRS[1]).image, second.image)


def test_the_trajectory_covers_the_middle():
    covered = Setup().covered()
    assert covered.shape == (19, 19)
    assert covered[9, 9]
    assert not covered[0].any()
    assert not covered[:, -1].any()
    assert Setup("out").covered().sum() < covered.sum() < Setup("fine").covered().sum()


def test_the_bootstrap_interval_is_that_of_normal_theory():
    values = np.random.default_rng(0).normal(3.0, 2.0, 400)
    half = 1.96 * values.std(ddof=1) / 20
    np.testing.assert_allclose(interval(values), (values.mean() - half, values.mean() + half), atol=0.1 * half)


def test_duels_are_fought_with_the_best_opponent(outcomes):
    found = duels(outcomes, "posterior")
    assert [one.snr_db for one in found] == list(SNRS)
    for one in found:
        better = {name: outcomes[name, one.snr_db].merits["psnr"].mean() for name in ("tikhonov", "nnls")}
        assert one.opponent == max(better, key=better.get)
        mine = outcomes["posterior", one.snr_db].merits["psnr"].mean()
        assert one.difference == pytest.approx(mine - better[one.opponent])
        assert one.low < one.difference < one.high
    assert duels(outcomes, "samples") == []


def test_a_duel_is_undecided_where_the_interval_holds_zero():
    verdicts = [Duel(5.0, "posterior", "art", 0.5, *ends).verdict for ends in ((0.1, 0.9), (-0.1, 1.0), (-2.0, -1.0))]
    assert verdicts == ["ours", "undecided", "theirs"]


def test_the_command_writes_figure_json_and_csv(tmp_path):
    outputs = tmp_path / "figure.png", tmp_path / "all.json", tmp_path / "frames.csv"
    result = run(
        *("--snr", 15, 25, "--methods", "tikhonov", "nnls,posterior", "--phantoms", 7, "--workers", 1),
        *("-o", outputs[0], "--json", outputs[1], "--csv", outputs[2]),
    )
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in outputs}
    assert outputs[0].stat().st_size > 10_000
    content = json.loads(outputs[1].read_text())
    assert content["setup"]["phantoms"] == 7
    assert [one["method"] for one in content["results"]] == ["tikhonov"] * 2 + ["nnls"] * 2 + ["posterior"] * 2
    assert all(one["tuned"]["interior"] == {"strength": True} for one in content["results"][:2])
    with outputs[2].open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 3 * 2 * 7
    psnr = np.mean([float(one["psnr"]) for one in lines if one["method"] == "tikhonov" and one["snr_db"] == "15"])
    assert psnr == pytest.approx(content["results"][0]["merits"]["psnr"]["mean"], rel=1e-4)
    assert f"{psnr:.1f}" in result.stdout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--snr 5 15 --seed 1", "--snr 5,15 --seed 1"),
        ("--snr -5 -2.5 --methods art tv", "--snr -5,-2.5 --methods art,tv"),
        ("--snr 5,15 25 -o x.png", "--snr 5,15,25 -o x.png"),
        ("--snr -o x.png y", "--snr -o x.png y"),
        ("x --phantoms 8 9 --snr", "x --phantoms 8 9 --snr"),
    ],
)
def test_values_of_lists_may_follow_each_other(given, expected):
    assert with_commas(given.split(), ("--snr", "--methods")) == expected.split()


def test_processes_give_what_one_gives(setup, outcomes):
    parallel = compare(setup, ["tikhonov"], SNRS, workers=2)
    for key, one in parallel.items():
        np.testing.assert_array_equal(one.image, outcomes[key].image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--methods", "art,magic"), "method 'magic'"),
        (("--methods", "art,deq"), "deq.onnx: no such file; to make it: mpi-fast train --method deq "),
        (("--scanner", "north"), "scanner 'north'"),
        (("--noise", "loud"), "noise 'loud'"),
        (("--snr", "15;25"), "--snr 15;25"),
        (("--phantoms", 4, "--phantom", 4), "--phantom 4"),
        (("--phantoms", 2, "--methods", "magic"), "magic"),  # not about the figure, which was not requested
        (("-o", "figure.bmp"), "must end in one of"),
    ],
)
def test_bad_input_gives_one_line(options, message, monkeypatch, tmp_path):
    monkeypatch.setattr("mpi_fast.methods.learned_model.packaged", lambda method: tmp_path / f"{method}.onnx")
    result = run("--phantoms", 7, *options)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_bad_setups_are_refused():
    for wrong in ({"phantoms": 1}, {"seed": -1}):
        with pytest.raises(InputError):
            Setup(**wrong)
    with pytest.raises(InputError, match="SNR"):
        compare(Setup(), ["art"], [np.nan])
