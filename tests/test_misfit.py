"""Data that disagree with their calibration are detected, without false alarms."""

import warnings
from dataclasses import replace

import numpy as np
import pytest

from mpi_fast import Reconstructor
from mpi_fast.errors import MPIFastWarning
from mpi_fast.flags import Flag
from mpi_fast.heldout import SCANNERS, phantoms
from mpi_fast.inspection import Inspection
from mpi_fast.misfit import Misfit, MisfitMeter, RowNoise
from mpi_fast.noise import complex_noise
from mpi_fast.verdict import FRAMES, IMAGE, IMAGE_DIRECTIONS, LEVEL, RECEIVER, Verdict

BACKGROUND = 16


@pytest.fixture(scope="module")
def scanner():
    return SCANNERS[0].scanner


@pytest.fixture(scope="module")
def calibration():
    return SCANNERS[0].measure_matrix().calibrate()


@pytest.fixture(scope="module")
def meter(calibration):
    return MisfitMeter(calibration)


def measure(calibration, scanner, count, snr_db=25.0, seed=0):
    """Rows of phantoms with constant noise, each scaled to the SNR, and the noise estimated from background frames."""
    rng = np.random.default_rng(seed)
    clean = phantoms(count, 5).reshape(count, -1) @ scanner.system_matrix()[calibration.selection].T
    typical = np.median(np.linalg.norm(phantoms(count, 5).reshape(count, -1) @ calibration.matrix.T, axis=1))
    clean *= typical / np.linalg.norm(clean, axis=1, keepdims=True)
    noise = complex_noise((count + BACKGROUND, calibration.num_rows), rng)
    noise *= typical * 10 ** (-snr_db / 20) / np.sqrt(calibration.num_rows)
    empty = noise[count:] - noise[count:].mean(axis=0)
    energy = np.square(np.abs(empty)).sum(axis=0)
    return (clean + noise[:count]).astype(np.complex64), RowNoise.of_background(calibration, energy, BACKGROUND)


class Source:
    """Chunks of rows and their noise, in the form of `pairing.MeasuredRows`."""

    def __init__(self, rows, noise=None):
        self.rows, self.noise, self.flags = rows, noise, None

    def __iter__(self):
        return iter(np.array_split(self.rows, 4))


def flags_of(calibration, rows, noise=None):
    """The flags of a stream, and the warnings."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = list(Reconstructor(calibration, threads=1).stream(Source(rows, noise)))
    return np.concatenate([one.flags for one in found]), [str(one.message) for one in said], found


def tuned(scanner, factor):
    chain = scanner.receive
    return replace(scanner, receive=replace(chain, resonance=tuple(factor * f for f in chain.resonance)))


def delayed(scanner):
    chain = scanner.receive
    return replace(scanner, receive=replace(chain, delay=tuple(delay + 1e-6 for delay in chain.delay)))


@pytest.mark.parametrize("snr_db", [10.0, 40.0])
def test_right_data_are_left_in_peace(calibration, scanner, snr_db):
    rows, noise = measure(calibration, scanner, 24, snr_db)
    for known in (noise, None):
        flags, said, found = flags_of(calibration, rows, known)
        assert not (flags & Flag.FOREIGN).any()
        assert not said
    misfit = np.concatenate([one.misfit for one in found])
    assert np.isnan(misfit[:, 0]).all()  # the noise is unknown
    assert (misfit[:, 2] > 0).all()


@pytest.mark.parametrize("change", [delayed, lambda s: tuned(s, 0.8), lambda s: tuned(s, 1.2)])
def test_a_changed_receive_chain_is_seen_in_single_frames(calibration, scanner, meter, change):
    rows, noise = measure(calibration, change(scanner), 24)
    image = Reconstructor(calibration, threads=1, inspect=False)(rows).image
    seen = 0
    for index in range(len(rows)):
        part = slice(index, index + 1)
        inspection = Inspection(calibration, noise, judge_images=False, meter=meter)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MPIFastWarning)
            _, flags = inspection.check_images(rows[part], image[part].reshape(1, -1), np.zeros(1, np.uint8))
        seen += bool(flags[0] & Flag.FOREIGN)
    assert seen >= 23


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: tuned(s, 1.2), "the receive chain"),
        (lambda s: replace(s, core_diameter=s.core_diameter * 28 / 22), "no plausible image"),
    ],
)
def test_a_series_without_background_frames_is_found_and_said_once(calibration, scanner, change, reason):
    rows, _ = measure(calibration, change(scanner), 48)
    flags, said, _ = flags_of(calibration, rows)
    assert flags[-1] & Flag.FOREIGN
    assert not flags[0] & Flag.FOREIGN
    assert len(said) == 1
    assert reason in said[0]
    assert f"a false alarm once in {FRAMES} frames or more" in said[0]


def test_outside_compares_with_the_background(calibration, scanner, meter):
    """Noise of four times that of the background frames is foreign."""
    rows, noise = measure(calibration, scanner, 8)
    image = phantoms(8, 5).reshape(8, -1)
    expected = meter(rows, calibration.reduce(rows), image, noise).outside
    np.testing.assert_allclose(expected, 1.0, atol=0.35)
    quieter = replace(noise, variance=noise.variance / 16)
    own = np.square(image).sum(axis=1)  # the noise of the matrix itself is not scaled
    found = meter(rows, calibration.reduce(rows), image, quieter).outside
    np.testing.assert_allclose(found, expected * (noise.variance + own) / (noise.variance / 16 + own), rtol=1e-6)


def test_the_image_s_misfit_is_what_it_says(calibration, scanner, meter):
    rows, noise = measure(calibration, scanner, 4)
    reduced, x = calibration.reduce(rows), phantoms(4, 6).reshape(4, -1)
    left = reduced.y - x @ calibration.basis * calibration.singular_values
    expected = np.square(left).sum(axis=1) / (calibration.rank * reduced.noise**2)
    np.testing.assert_allclose(meter(rows, reduced, x, noise).image, expected, rtol=1e-4)


@pytest.mark.parametrize("colour", [1.0, 4.0])
def test_noise_alone_is_a_chi_square_in_the_receiver_s_directions(calibration, meter, colour):
    """Also if some rows are noisier than during calibration, provided background frames show it."""
    rng = np.random.default_rng(4)
    deviation = np.where(np.arange(calibration.num_rows) % 3 == 0, colour, 1.0) / calibration.weights
    image = phantoms(200, 5).reshape(200, -1)
    noise = rng.standard_normal((400, calibration.num_rows)) + 1j * rng.standard_normal((400, calibration.num_rows))
    noise = noise * deviation
    rows = ((1e-3 * image) @ calibration.matrix.T + noise[:200]).astype(np.complex64)
    known = RowNoise.of_background(calibration, np.square(np.abs(noise[200:])).sum(axis=0), 201)
    found = meter(rows, calibration.reduce(rows), 1e-3 * image, known)
    assert abs(found.receiver.mean() - 1) < 0.2
    assert np.quantile(found.receiver, 0.99) < 6


@pytest.mark.parametrize(("bet", "directions"), [(RECEIVER, 3.0), (IMAGE, IMAGE_DIRECTIONS)])
def test_bets_lose_if_all_is_right(bet, directions):
    """The mean factor of a frame in the product is at most one, which bounds the false alarms."""
    mean = np.random.default_rng(0).chisquare(directions, 100_000) / directions * bet.usual
    assert np.exp(bet.log(mean, directions)).mean() <= 1.01


def misfit(values, **others):
    count = len(values)
    ones = np.ones(count)
    fields = dict.fromkeys(("outside", "receiver", "image", "implausible"), ones) | others
    return Misfit(**fields, directions=3 * ones, rows=np.ones((count, 10)))


def test_a_verdict_bounds_its_false_alarms_and_takes_itself_back():
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(300):
        verdict = Verdict(RowNoise(np.full(10, 20.0), 20.0))
        right = {"receiver": rng.chisquare(3, 64) / 3, "implausible": rng.chisquare(30, 64) / 30}
        alarms += bool(verdict.add(misfit(np.ones(64), **right)).any())
    assert alarms <= 3
    verdict = Verdict(RowNoise(np.full(10, 20.0), 20.0))
    assert not verdict.add(misfit(np.ones(64))).any()
    found = verdict.add(misfit(np.ones(64), receiver=np.full(64, 9.0)))
    assert 2 <= found.argmax() < 8  # one frame is not sufficient
    assert found[found.argmax() :].all()
    assert verdict.foreign
    assert verdict.receiver <= 2 * LEVEL
    assert not verdict.add(misfit(np.ones(64)))[-1]


def test_without_background_frames_the_first_frames_teach_the_noise():
    verdict = Verdict(RowNoise.unknown(10))
    found = verdict.add(misfit(np.ones(8), receiver=np.full(8, 50.0)))
    assert not found.any()
    assert verdict.noise.frames == 8


def test_nobody_has_to_ask(calibration, scanner):
    rows, _ = measure(calibration, scanner, 2)
    found = Reconstructor(calibration, threads=1, inspect=False)(rows)
    assert found.misfit is None
    np.testing.assert_array_equal(found.flags, 0)
