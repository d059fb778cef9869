"""What a live stream counts, and how long its images take."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mpi_fast.errors import MPIFastError
from mpi_fast.flags import Flag
from mpi_fast.live.frames import LiveImage

try:
    from hdrh.histogram import HdrHistogram
except ImportError as error:
    raise MPIFastError("live streams need hdrhistogram: pip install 'mpi-fast[live]'") from error

PERCENTILES = 50.0, 90.0, 99.0, 99.9
LONGEST_US = 3_600_000_000  # an hour, in microseconds; what takes longer counts as an hour
DIGITS = 2  # of latencies that are told apart: to 1 %


@dataclass(frozen=True)
class Statistics:
    """Counts since a stream's start; every frame is in one of `frames_dropped`, `background`, `images` and `waiting`.

    Attributes
    ----------
    frames : int
        Taken in.
    refused : int
        Not taken in: of the wrong shape or type, or with ``error`` when too many waited.
    missing : int
        Numbers that were skipped: frames that were lost before they came here.
    jumps : int
        Times that number or timestamp did not grow from one frame to the next.
    background : int
        Marked empty.
    frames_dropped : int
        Of which no image was made, because newer ones came or the stream was closed.
    waiting : int
        Of which none has been made yet.
    images : int
        Made; with each period on its own more than one of a frame.
    images_dropped : int
        That nobody fetched in time, or before the stream was closed.
    delivered : int
        That somebody has fetched.
    failed : int
        Images that `reconstruct` raised an error for.
    batches : int
        Calls of `reconstruct`.
    flags : dict
        Images with each flag, by its name.
    latency_ms : dict
        Percentiles by their names, such as "p99.9", and "max"; empty before the first image.
    latency_sum_s : float
    last_error : str, or None
        What went wrong last, in words.
    """

    frames: int = 0
    refused: int = 0
    missing: int = 0
    jumps: int = 0
    background: int = 0
    frames_dropped: int = 0
    waiting: int = 0
    images: int = 0
    images_dropped: int = 0
    delivered: int = 0
    failed: int = 0
    batches: int = 0
    flags: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, float] = field(default_factory=dict)
    latency_sum_s: float = 0.0
    last_error: str | None = None


class Counters:
    """Counts, from any thread, in memory that does not grow."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._flags = {str(flag.name).lower(): 0 for flag in Flag}
        self._histogram = HdrHistogram(1, LONGEST_US, DIGITS)
        self._sum_s = 0.0
        self._last_error: str | None = None
        self._last: tuple[int, float] | None = None

    def add(self, count: int = 1, *, to: str) -> None:
        """Count more of one field of `Statistics`."""
        with self._lock:
            self._counts[to] = self._counts.get(to, 0) + count

    def fail(self, error: str, *, to: str) -> None:
        """Count an error, and keep its words."""
        self.add(to=to)
        self._last_error = error

    def count_arrival(self, number: int, timestamp: float) -> None:
        """Count a frame that is taken in, and compare its number and time with those of the one before."""
        with self._lock:
            counts = self._counts
            counts["frames"] = counts.get("frames", 0) + 1
            if self._last is not None:
                before, then = self._last
                if number <= before or timestamp < then:
                    counts["jumps"] = counts.get("jumps", 0) + 1
                counts["missing"] = counts.get("missing", 0) + max(0, number - before - 1)
            self._last = number, timestamp

    def count_images(self, images: Iterable[LiveImage]) -> None:
        """Count images."""
        with self._lock:
            for image in images:
                self._counts["images"] = self._counts.get("images", 0) + 1
                self._histogram.record_value(min(max(1, round(1e3 * image.latency_ms)), LONGEST_US))
                self._sum_s += image.latency_ms / 1e3
                for name in image.flag_names:
                    self._flags[name] += 1

    def snapshot(self, more: Mapping[str, int]) -> Statistics:
        """All of it at one moment, and what others have counted."""
        with self._lock:
            histogram, latency = self._histogram, {}
            if histogram.get_total_count():
                latency = {f"p{p:g}": histogram.get_value_at_percentile(p) / 1e3 for p in PERCENTILES}
                latency["max"] = histogram.get_max_value() / 1e3
            counts = {name: self._counts.get(name, 0) + more.get(name, 0) for name in {**self._counts, **more}}
            return Statistics(
                **counts,
                flags=dict(self._flags),
                latency_ms=latency,
                latency_sum_s=self._sum_s,
                last_error=self._last_error,
            )
