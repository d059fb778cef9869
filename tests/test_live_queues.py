"""Queues of live streams: order, slow parts, dropped and refused frames, counters, and the end."""

import threading
import time

import numpy as np
import pytest
from live_echo import Echo, accounted, shown, wait_for

from mpi_fast.errors import InputError, LiveError, MismatchError
from mpi_fast.live import Live
from mpi_fast.live.pace import Pace


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
    # The queue to the consumer also keeps the four newest images, so a late consumer may miss the first one.
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
    """Of 500 frames per second 200 can be reconstructed; their images are in time."""
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
    """A slow consumer delays the reconstruction, which delays `submit`."""
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
    """A blocked `submit`, a blocked consumer, and a worker whose images are not fetched."""
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
    """The stream fails, not a frame; no call waits for ever."""
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


def batches(pace, time_of, count):
    """The sizes of this number of full batches, which take ``time_of(size, number)`` seconds."""
    sizes = []
    for number in range(count):
        sizes.append(pace.batch())
        pace.learn(sizes[-1], time_of(sizes[-1], number))
    return sizes


def test_batches_grow_as_long_as_they_are_in_time():
    """A single frame leaves one of two cores idle, so its time alone does not predict that of a batch."""
    sizes = batches(Pace(0.05, 64), lambda size, number: 0.0126 * -(-size // 2), 200)
    assert sizes[:4] == [1, 2, 3, 2]
    assert np.bincount(sizes[4:])[2] > 0.9 * len(sizes[4:])
    assert batches(Pace(0.05, 5), lambda size, number: 1e-4, 20)[-1] == 5


def test_one_late_batch_is_chance_and_a_slow_processor_is_not():
    pace = Pace(0.05, 2)
    sizes = batches(pace, lambda size, number: 0.025 if number % 20 == 10 else 0.013, 100)
    assert sizes[1:] == [2] * 99
    assert 1 in batches(pace, lambda size, number: 0.025, 10)
    assert np.mean(batches(pace, lambda size, number: 0.012 * size, 330)) < 1.2


def test_a_limit_that_is_far_too_large_is_left_at_once():
    pace = Pace(0.05, 64)
    pace.learn(1, 1e-5)
    assert pace.batch() == 64
    pace.learn(0, 1e-5)  # only bad frames, which take no time and give no information
    pace.learn(64, 64 * 0.008)
    assert pace.batch() == 2
