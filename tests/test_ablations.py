"""The ablation bench: what it changes is changed for the time of one call, and what it counts is what is evaluated."""

import sys
from pathlib import Path

import numpy as np
import pytest

from mpi_fast import consensus
from mpi_fast.bundle import Bundle
from mpi_fast.calibration import Calibration
from mpi_fast.comparison import Setup, frames
from mpi_fast.engines.onnx import OnnxEngine
from mpi_fast.reconstructor import Reconstructor

sys.path.append(str(Path(__file__).parents[1] / "bench"))
import ablations
import short_training

SETUP = Setup(phantoms=2)


class Counting:
    """The bundled network, and how many images it was given."""

    name = "counting"

    def __init__(self):
        self.engine, self.images = OnnxEngine(Bundle.open(), threads=1), 0

    def bind(self, frames, samples):
        evaluator = self.engine.bind(frames, samples)
        denoise = evaluator.denoise

        def counted():
            self.images += len(evaluator.image)
            return denoise()

        evaluator.denoise = counted
        return evaluator


@pytest.mark.parametrize("options", [{}, {"samples": 1, "steps": 2, "consensus": 0}, {"samples": 2, "consensus": 3}])
def test_evaluations_are_the_images_that_the_network_denoises(options):
    engine = Counting()
    ablations.assess(ablations.Variant("", options), SETUP, 15.0, engine)
    assert engine.images == SETUP.phantoms * ablations.evaluations(options)


def test_every_table_has_one_default_that_changes_nothing():
    for group in ablations.groups():
        (usual,) = [one for one in group.variants if one.default]
        if "no consensus" not in group.title:
            assert ablations.evaluations(usual.options) == ablations.evaluations({})


def test_changes_reach_the_reconstruction_and_end_with_it():
    engine = OnnxEngine(Bundle.open(), threads=1)
    before = Calibration.reduce, consensus.level_of, consensus.falling
    kept = ablations.consensus_with(falling=ablations.multiplied_by_ratio_to(0))
    changes = ablations.fixed_level(0.06), ablations.known_noise, kept, ablations.seen_in(0)
    usual, level, known, other, upright = (
        ablations.assess(one, SETUP, 15.0, engine)["psnr"]
        for one in (ablations.Variant(""), *(ablations.Variant("", change=change) for change in changes))
    )
    assert (np.abs(usual - level) > 1e-3).all()
    assert (np.abs(usual - known) > 1e-6).all()
    assert (np.abs(usual - other) > 1e-3).all()
    assert (np.abs(usual - upright) > 1e-3).all()
    assert (Calibration.reduce, consensus.level_of, consensus.falling) == before
    signals, truth = frames(SETUP, 15.0)
    image = Reconstructor(ablations.scanner("in")[1], device="cpu", threads=1)(signals).image
    np.testing.assert_allclose(usual, ablations.metrics.psnr(image, truth), atol=1e-3)


@pytest.mark.parametrize("name", ["SHARE", "WIDENING", "DAMPING"])
def test_what_is_for_noisy_signals_changes_their_images(name):
    engine, before = OnnxEngine(Bundle.open(), threads=1), getattr(consensus, name)
    without = ablations.Variant("", change=ablations.consensus_with(**{name: 0.0}))
    usual, changed = (ablations.assess(one, SETUP, 5.0, engine)["psnr"] for one in (ablations.Variant(""), without))
    assert (np.abs(usual - changed) > 1e-3).all()
    assert getattr(consensus, name) == before


def test_another_uncertainty_changes_nothing_but_the_intervals():
    engine, other = OnnxEngine(Bundle.open(), threads=1), ablations.Variant("", change=ablations.plain_deviation)
    usual, changed = (ablations.assess(one, SETUP, 35.0, engine) for one in (ablations.Variant(""), other))
    np.testing.assert_array_equal(usual["psnr"], changed["psnr"])
    assert (usual["coverage"] != changed["coverage"]).any()


def test_known_noise_is_near_the_estimate_where_noise_dominates():
    calibration, (signals, _) = ablations.scanner("in")[1], frames(SETUP, 5.0)
    estimate = calibration.reduce(calibration.rows(signals)).noise
    np.testing.assert_allclose(ablations.true_noise(SETUP, 5.0), estimate, rtol=0.1)


def test_one_scanner_gives_the_signals_that_its_calibration_reduces():
    matrix, calibration = ablations.scanner("in")
    scanners = short_training.one_scanner(matrix, calibration)
    image = frames(SETUP, 5.0)[1][0].ravel()
    reduced = calibration.reduce((matrix.truth[calibration.selection] @ image)[None])
    assert len(scanners) == 1
    np.testing.assert_allclose(scanners.signal[0].numpy() @ image, reduced.y[0], rtol=1e-3, atol=1e-3)


def test_a_table_marks_the_default_the_best_and_what_differs():
    result = {"psnr": 30.0, "ssim": 0.9, "coverage": 0.8, "psnr_gain": 0.0, "psnr_gain_interval": (0.0, 0.0)}
    better = {**result, "psnr": 31.0, "psnr_gain": 1.0, "psnr_gain_interval": (0.5, 1.5)}
    rows = [
        {"name": "a", "default": True, "evaluations": 8, "results": {"5 dB": result}},
        {"name": "b", "default": False, "evaluations": 9, "results": {"5 dB": better}},
    ]
    assert ablations.table(rows).splitlines()[2:] == [
        "| **a, the default** | 8 | 30.00 / 0.900 / 80 % |",
        r"| b | 9 | **31.00**\* / 0.900 / 80 % |",
    ]
