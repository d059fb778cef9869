"""Images of live streams are those of the reconstructor, also with bad frames; means, background, clocks."""

import threading
import time
import warnings

import numpy as np
import pytest
from live_echo import Echo, accounted, shown

from mpi_fast import Reconstructor
from mpi_fast.flags import Flag
from mpi_fast.live import Live
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.reconstruction import Reconstruction


@pytest.fixture(scope="module")
def rows(true_rows):
    images = generate(["tumours", "dots"], 12, seed=4).reshape(12, -1)
    return add_noise(images @ true_rows.T, 25.0, np.random.default_rng(2))


def test_images_are_those_of_the_reconstructor(calibration, rows):
    reconstruct = Reconstructor(calibration, threads=1)
    expected = Reconstructor(calibration, threads=1)(rows)
    with Live(reconstruct, newest=False) as live:
        for index, one in enumerate(rows):
            live.submit(one, number=100 + index, timestamp=0.5 * index)
        live.finish()
        images = list(live)
    assert [image.number for image in images] == list(range(100, 112))
    assert [image.timestamp for image in images] == [0.5 * index for index in range(12)]
    peak = expected.image.max()
    for name in ("image", "std"):
        found = np.stack([getattr(image, name) for image in images])
        np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-4, atol=1e-5 * peak)
    np.testing.assert_allclose([image.snr_db for image in images], expected.snr_db, rtol=1e-5)
    assert [image.flags for image in images] == list(expected.flags)
    assert all(image.latency_ms > 0 and image.averaged == 1 and image.error is None for image in images)
    assert accounted(live.statistics())


def test_samples_spectra_and_rows_of_one_frame_give_one_image(measured, calibration):
    spectra = measured.truth[..., :3].transpose(2, 0, 1).sum(axis=0)
    spectra[:, 0] = 0
    samples = np.fft.irfft(spectra, calibration.num_samples)
    spectra = np.fft.rfft(samples)
    with Live(Echo(calibration), newest=False) as live:
        for signals in (samples, spectra, spectra[calibration.selection], np.stack([samples, samples])):
            live.submit(signals)
        live.finish()
        values = shown(live)
    assert values[0] != 0
    np.testing.assert_allclose(values, values[0], rtol=1e-4)


def test_what_raises_costs_its_own_frame_alone(calibration, frame):
    gate = threading.Event()
    echo = Echo(calibration, raises=3, gate=gate)
    with Live(echo, newest=False) as live:
        for value in range(6):
            live.submit(frame(value))
        gate.set()
        live.finish()
        images = list(live)
    assert [image.number for image in images] == list(range(6))
    assert images[3].error == "frame 3: RuntimeError: cannot do 3"
    assert images[3].flag_names == ["bad"]
    assert np.isnan(images[3].image).all()
    assert [value for value in shown(images) if value == value] == [0, 1, 2, 4, 5]
    found = live.statistics()
    assert (found.failed, found.flags["bad"], found.last_error) == (1, 1, images[3].error)
    assert accounted(found)


def test_a_reconstruction_of_the_wrong_length_is_an_error(calibration, frame):
    def one_short(signals, flags=None):
        result = Echo(calibration)(signals)
        return Reconstruction(result.image[1:], result.std, result.snr_db, result.noise_floor, 0.0)

    one_short.calibration = calibration
    with Live(one_short, newest=False) as live:
        live.submit(frame(1))
        image = live.get(timeout=20)
    assert "made 0 images of 1 frames" in image.error


@pytest.mark.parametrize("average", [1, 3])
@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_a_burst_of_bad_frames_costs_no_other(calibration, frame, average, value):
    burst = range(10, 25)
    with Live(Echo(calibration), newest=False, average=average) as live:
        for number in range(40):
            signals = frame(number)
            if number in burst:
                signals[number] = value
            live.submit(signals)
        live.finish()
        images = list(live)
    assert [image.number for image in images if image.flags == Flag.BAD] == list(burst)
    assert all(np.isnan(images[number].image).all() for number in burst)
    after = {1: list(range(25, 40)), 3: [25, 25.5, *range(26, 39)]}
    assert shown(images[25:]) == after[average]
    assert live.statistics().flags["bad"] == len(burst)


def test_clipped_and_silent_frames_are_flagged_and_enter_no_mean(calibration):
    t = np.arange(calibration.num_samples)
    rng = np.random.default_rng(0)
    waves = np.sin(2 * np.pi * t / 17)[None] + 0.01 * rng.standard_normal((calibration.selection.shape[0], len(t)))
    clipped, dead = np.clip(waves, -0.9, 0.9), waves.copy()
    dead[0] = 0
    with Live(Echo(calibration), newest=False, average=4) as live:
        for signals in (waves, clipped, dead, waves):
            live.submit(signals)
        live.finish()
        images = list(live)
    assert [image.flag_names for image in images] == [[], ["clipped"], ["dead"], []]
    assert [image.averaged for image in images] == [1, 1, 1, 2]
    assert shown(images)[3] == pytest.approx(shown(images)[0], rel=1e-5)


def test_sliding_means_over_frames_that_are_there(calibration, frame):
    with Live(Echo(calibration), newest=False, average=3) as live:
        for number in (0, 1, 2, 3, 5, 9, 10):
            live.submit(frame(number), number=number)
        live.finish()
        images = list(live)
    assert shown(images) == pytest.approx([0, 0.5, 1, 2, 4, 9, 9.5])
    assert [image.averaged for image in images] == [1, 2, 3, 3, 2, 1, 2]
    assert live.statistics().missing == 1 + 3


def test_periods_as_a_mean_or_each_for_itself(calibration, frame):
    signals = [np.stack([frame(4 * number + period) for period in range(4)]) for number in range(3)]
    signals[1][2, 5] = np.nan
    for periods, average, expected in (
        ("mean", 1, [1.5, (4 + 5 + 7) / 3, 9.5]),
        ("mean", 2, [1.5, (1.5 + 16 / 3) / 2, (16 / 3 + 9.5) / 2]),
        ("each", 2, [0, 0.5, 1.5, 2.5, 3.5, 4.5, np.nan, 7, 7.5, 8.5, 9.5, 10.5]),
    ):
        with Live(Echo(calibration), newest=False, periods=periods, average=average) as live:
            for one in signals:
                live.submit(one)
            live.finish()
            images = list(live)
        np.testing.assert_allclose(shown(images), expected, rtol=1e-6)
        count = 4 if periods == "each" else 1
        assert [(image.number, image.period) for image in images] == [(n, p) for n in range(3) for p in range(count)]


def test_the_background_follows_empty_frames(calibration, frame):
    rng = np.random.default_rng(1)

    def noisy(value):
        noise = rng.standard_normal((2, calibration.num_rows))
        return (frame(value) + 1e-3 * (noise[0] + 1j * noise[1])).astype(np.complex64)

    with Live(Echo(calibration), newest=False, background_frames=8, batch=1) as live:
        live.submit(noisy(5))
        for drift in (0, 2):
            for _ in range(8):
                live.submit(noisy(1 + drift), empty=True)
            spoilt = noisy(100)
            spoilt[3] = np.nan
            live.submit(spoilt, empty=True)  # not used for the background
            live.submit(noisy(5 + drift))
        live.finish()
        images = list(live)
    np.testing.assert_allclose(shown(images), [5, 4, 4], atol=0.01)
    assert [image.number for image in images] == [0, 10, 20]
    assert live.statistics().background == 18
    assert accounted(live.statistics())


def test_one_outlier_does_not_spoil_the_background(calibration, frame):
    rng = np.random.default_rng(1)
    empties = [frame(1) * (1 + 1e-3 * rng.standard_normal(calibration.num_rows)) for _ in range(9)]
    empties[4][0] *= 1000
    with Live(Echo(calibration), newest=False, batch=1) as live:
        for one in empties:
            live.submit(one.astype(np.complex64), empty=True)
        live.submit(frame(3))
        assert shown([live.get(timeout=20)]) == pytest.approx([2], abs=0.01)


def test_background_frames_let_foreign_signals_be_told(calibration, measured, rows):
    rng = np.random.default_rng(3)
    level = np.abs(rows).std() * 0.05

    def noise():
        parts = rng.standard_normal((2, calibration.num_rows)) / calibration.weights * 1.0
        return (parts[0] + 1j * parts[1]).astype(np.complex64) * np.float32(level / np.median(1 / calibration.weights))

    reconstruct = Reconstructor(calibration, threads=1)
    with warnings.catch_warnings(record=True) as told, Live(reconstruct, newest=False, batch=4) as live:
        warnings.simplefilter("always")
        for _ in range(20):
            live.submit(noise(), empty=True)
        live.submit(rows[0])
        live.submit(100 * level * rng.standard_normal(calibration.num_rows).astype(np.complex64))
        live.finish()
        right, strange = live
    assert any("do not belong to the calibration" in str(one.message) for one in told)
    assert right.flags == 0
    assert "foreign" in strange.flag_names
    assert live.statistics().flags["foreign"] == 1
    assert np.isfinite(right.misfit).all()


def test_clocks_that_jump_change_nothing_but_a_counter(calibration, frame, monkeypatch):
    times = [10.0, 11.0, 5.0, 6.0, 1e9, 7.0]
    with Live(Echo(calibration), newest=False, average=2) as live:
        for value, timestamp in enumerate(times):
            monkeypatch.setattr(time, "time", lambda timestamp=timestamp: timestamp)
            live.submit(frame(value))
        live.submit(frame(9), number=0)  # the scanner was restarted
        live.submit(frame(9), number=1)
        live.finish()
        images = list(live)
    assert [image.timestamp for image in images] == [*times, 7.0, 7.0]
    assert shown(images) == [0, 0.5, 1.5, 2.5, 3.5, 4.5, 9, 9]
    assert all(0 <= image.latency_ms < 20_000 for image in images)
    assert live.statistics().jumps == 3
    assert live.statistics().latency_ms["max"] < 20_000
