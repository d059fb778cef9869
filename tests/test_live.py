"""Live streams: order, slow parts, bad frames, means, background, clocks, ends."""

import threading
import time
import warnings
from dataclasses import dataclass, field

import numpy as np
import pytest

from mpi_fast import Reconstructor
from mpi_fast.errors import InputError, LiveError, MismatchError
from mpi_fast.flags import Flag
from mpi_fast.live import Live
from mpi_fast.noise import add_noise
from mpi_fast.phantoms import generate
from mpi_fast.reconstruction import Reconstruction


@dataclass
class Echo:
    """Makes images whose every voxel is the real part of a frame's first row; slow or broken as one likes."""

    calibration: object
    seconds: float = 0.0
    raises: object = None
    gate: threading.Event | None = None
    sizes: list[int] = field(default_factory=list)

    def __call__(self, signals, flags=None):
        self.sizes.append(len(signals))
        assert np.isfinite(signals).all()
        if self.gate is not None:
            self.gate.wait(20)
        time.sleep(self.seconds)
        if self.raises is not None and self.raises in signals[:, 0].real:
            raise RuntimeError(f"cannot do {self.raises}")
        image = np.broadcast_to(signals.real[:, :1, None], (len(signals), *self.calibration.grid)).astype(np.float32)
        few = np.ones(len(signals), np.float32)
        return Reconstruction(image, image, few, few, 0.0, None, np.zeros(len(signals), np.uint8))


@pytest.fixture
def frame(calibration):
    """A frame of selected rows, all of one value."""
    return lambda value: np.full(calibration.num_rows, value, np.complex64)


def shown(images):
    return [float(image.image.flat[0]) for image in images]


def accounted(found):
    """Whether every frame is somewhere."""
    gone = found.frames_dropped + found.background + found.images + found.waiting
    return found.frames == gone and found.images == found.delivered + found.images_dropped


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.001)


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


def test_batches_grow_with_the_backlog_and_order_stays(calibration, frame):
    gate = threading.Event()
    echo = Echo(calibration, gate=gate)
    with Live(echo, newest=False, batch=16) as live:
        live.submit(frame(0))
        wait_for(lambda: echo.sizes)
        for value in range(1, 41):
            live.submit(frame(value))
        gate.set()
        live.finish()
        assert shown(live) == list(range(41))
    assert echo.sizes == [1, 16, 16, 8]


def test_newest_wins_where_the_processor_is_slow(calibration, frame):
    gate = threading.Event()
    echo = Echo(calibration, gate=gate)
    with Live(echo, waiting=4) as live:
        live.submit(frame(0))
        wait_for(lambda: echo.sizes)
        for value in range(1, 11):
            live.submit(frame(value))
        gate.set()
        live.finish()
        images = list(live)
    # Of four that wait for the consumer the newest win, too: where it is late, the first image is lost to them.
    assert shown(images) in ([0, 7, 8, 9, 10], [7, 8, 9, 10])
    found = live.statistics()
    assert found.frames == 11
    assert found.frames_dropped == 6
    assert accounted(found)


def test_newest_wins_where_the_consumer_is_slow(calibration, frame):
    with Live(Echo(calibration), waiting=3) as live:
        for value in range(20):
            live.submit(frame(value))
            wait_for(lambda value=value: live.statistics().images == value + 1)
        live.finish()
        assert shown(live) == [17, 18, 19]
        assert live.statistics().images_dropped == 17
        assert accounted(live.statistics())


def test_latency_is_kept_by_dropping(calibration, frame):
    """500 frames a second, of which a processor makes 200: what comes out comes out in time."""
    with Live(Echo(calibration, seconds=0.02), latency=0.1, batch=4) as live:
        for value in range(200):
            live.submit(frame(value))
            time.sleep(0.002)
        live.finish()
        images = list(live)
    late = sorted(image.latency_ms for image in images)
    assert late[len(late) // 2] < 100
    assert live.statistics().frames_dropped == 200 - len(images) > 20
    assert images[-1].number == 199


def test_blocking_drops_nothing(calibration, frame):
    """A slow consumer holds up the reconstruction, and that those who submit."""
    with Live(Echo(calibration), newest=False, waiting=2, batch=1) as live:
        thread = threading.Thread(target=lambda: [live.submit(frame(value)) for value in range(30)])
        thread.start()
        time.sleep(0.2)
        assert thread.is_alive()
        assert live.statistics().images <= 4
        images = []
        while len(images) < 30:
            images.append(live.get(timeout=20))
        thread.join()
    assert shown(images) == list(range(30))
    assert live.statistics().frames_dropped == live.statistics().images_dropped == 0


def test_blocking_gives_up_after_its_time(calibration, frame):
    gate = threading.Event()
    with Live(Echo(calibration, gate=gate), newest=False, waiting=1) as live:
        live.submit(frame(0))
        wait_for(lambda: live.statistics().batches)
        live.submit(frame(1))
        with pytest.raises(LiveError, match=r"1 frames wait .* at most 1 were expected"):
            live.submit(frame(2), timeout=0.01)
        gate.set()
        assert live.statistics().refused == 1


def test_errors_if_asked_for(calibration, frame):
    gate = threading.Event()
    with Live(Echo(calibration, gate=gate), newest=False, full="error", waiting=2) as live:
        live.submit(frame(0))
        wait_for(lambda: live.statistics().batches)
        live.submit(frame(1))
        live.submit(frame(2))
        with pytest.raises(LiveError, match="2 frames wait to be reconstructed and 0 images to be fetched"):
            live.submit(frame(3))
        gate.set()
        live.finish()
        assert shown(live) == [0, 1, 2]
    assert "no room" in live.statistics().last_error


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
            live.submit(spoilt, empty=True)  # is left out
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
        live.submit(frame(9), number=0)  # the scanner began anew
        live.submit(frame(9), number=1)
        live.finish()
        images = list(live)
    assert [image.timestamp for image in images] == [*times, 7.0, 7.0]
    assert shown(images) == [0, 0.5, 1.5, 2.5, 3.5, 4.5, 9, 9]
    assert all(0 <= image.latency_ms < 20_000 for image in images)
    assert live.statistics().jumps == 3
    assert live.statistics().latency_ms["max"] < 20_000


def test_closing_with_frames_in_flight(calibration, frame):
    gate = threading.Event()
    before = threading.active_count()
    live = Live(Echo(calibration, gate=gate), newest=False, batch=2)
    for value in range(9):
        live.submit(frame(value))
    wait_for(lambda: live.statistics().batches)
    threading.Timer(0.05, gate.set).start()
    live.close()
    live.close()
    wait_for(lambda: threading.active_count() == before)
    assert live.ended
    assert list(live) == []
    found = live.statistics()
    assert found.frames == 9 == found.frames_dropped + found.images
    assert found.images == found.images_dropped
    assert found.waiting == 0
    with pytest.raises(LiveError, match="is closed"):
        live.submit(frame(1))


def test_closing_frees_those_who_wait(calibration, frame):
    """A blocked submit, a blocked consumer and a worker that nobody fetches from."""
    live = Live(Echo(calibration), newest=False, waiting=1, batch=1)
    errors = []

    def submit():
        try:
            while True:
                live.submit(frame(1))
        except LiveError as error:
            errors.append(str(error))

    thread = threading.Thread(target=submit)
    thread.start()
    time.sleep(0.1)
    live.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "closed" in errors[0]

    idle = Live(Echo(calibration))
    fetched = []
    consumer = threading.Thread(target=lambda: fetched.extend(idle))
    consumer.start()
    idle.close()
    consumer.join(20)
    assert fetched == []
    assert not consumer.is_alive()


def test_a_stream_that_fails_says_so(calibration, frame, monkeypatch):
    """Not a frame's fault, but the stream's: nobody waits for ever."""
    with Live(Echo(calibration), newest=False) as live:

        def broken(frames):
            raise MemoryError("no memory")

        monkeypatch.setattr(live, "_prepare", broken)
        live.submit(frame(1))
        with pytest.raises(LiveError, match="the live stream has failed: MemoryError"):
            next(iter(live))
        with pytest.raises(LiveError, match="has failed: MemoryError"):
            live.submit(frame(1))


@pytest.mark.parametrize(
    ("signals", "kind", "match"),
    [
        (np.zeros((3, 7)), MismatchError, r"float64 \(3, 7\): of a frame \(3, 1632\) was expected"),
        (np.zeros(5, complex), MismatchError, r"\(5,\): of a frame \(3, 817\) or \("),
        (np.zeros((0, 3, 1632)), MismatchError, "or with periods in front"),
        ([["a"]], InputError, "real samples or complex spectra"),
        ([[1], [1, 2]], InputError, "an array of numbers"),
    ],
)
def test_wrong_frames_are_refused_at_the_door(calibration, frame, signals, kind, match):
    with Live(Echo(calibration), newest=False) as live:
        with pytest.raises(kind, match=match):
            live.submit(signals)
        live.submit(frame(2))
        assert shown([live.get(timeout=20)]) == [2]
        assert live.statistics().refused == 1
        assert live.statistics().frames == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"average": 0}, "average 0: expected a whole number from 1"),
        ({"waiting": 2.5}, "waiting 2.5"),
        ({"latency": 0}, "latency 0: expected a positive number"),
        ({"full": "hope"}, "expected block or error"),
        ({"periods": "all"}, "expected mean or each"),
    ],
)
def test_wrong_options(calibration, options, match):
    with pytest.raises(InputError, match=match):
        Live(Echo(calibration), **options)


def test_metrics_are_read_by_prometheus_own_parser(calibration, frame):
    parser = pytest.importorskip("prometheus_client.parser")
    with Live(Echo(calibration), newest=False) as live:
        for value in (1, np.nan, 3):
            live.submit(frame(value))
        live.finish()
        list(live)
        families = {one.name: one for one in parser.text_string_to_metric_families(live.metrics())}
    value = {
        (sample.name, *sample.labels.values()): sample.value for one in families.values() for sample in one.samples
    }
    assert value["mpi_fast_live_frames_total",] == 3
    assert value["mpi_fast_live_flagged_total", "bad"] == 1
    assert value["mpi_fast_live_latency_seconds_count",] == 3
    assert 0 < value["mpi_fast_live_latency_seconds", "0.5"] <= value["mpi_fast_live_latency_seconds", "0.999"]
    assert families["mpi_fast_live_waiting"].type == "gauge"


def test_latency_percentiles(calibration):
    from mpi_fast.live.counters import Counters
    from mpi_fast.live.frames import LiveImage

    counters = Counters()
    nothing = np.zeros(1, np.float32)
    milliseconds = [*range(1, 1001), 1e9]
    counters.count_images([LiveImage(0, 0, 0.0, nothing, nothing, 0.0, 0.0, None, 0, 1, ms) for ms in milliseconds])
    found = counters.snapshot({}).latency_ms
    for name, expected in (("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 1000)):
        assert found[name] == pytest.approx(expected, rel=0.02)
    assert found["max"] == pytest.approx(3.6e6, rel=0.02)
