"""Counters of a live stream, and the latency of its images."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from mpi_fast.flags import Flag
from mpi_fast.live.frames import LiveImage
from mpi_fast.optional import optional

with optional("live streams need hdrhistogram: pip install 'mpi-fast[live]'"):
    from hdrh.histogram import HdrHistogram

PERCENTILES = 50.0, 90.0, 99.0, 99.9
LONGEST_US = 3_600_000_000  # an hour, in microseconds; longer latencies count as an hour
DIGITS = 2  # significant digits of latencies in the histogram: 1 %


@dataclass(frozen=True)
class Statistics:
    """Counts since the start; every frame is in one of `frames_dropped`, `background`, `images` and `waiting`.

    Attributes
    ----------
    frames : int
        Frames accepted by `submit`.
    refused : int
        Frames not accepted: wrong shape or type, or too many waiting frames with ``full="error"``.
    missing : int
        Numbers that were skipped: frames lost before they arrived.
    jumps : int
        Number of frames whose number or timestamp did not increase from the frame before.
    background : int
        Frames marked empty.
    frames_dropped : int
        Frames dropped because newer ones arrived or the stream was closed.
    waiting : int
        Frames waiting for their reconstruction.
    images : int
        Images made; with ``periods="each"`` several for a frame.
    images_dropped : int
        Images dropped because newer ones were made or the stream was closed before they were fetched.
    delivered : int
        Images fetched.
    failed : int
        Images for which `reconstruct` raised an error.
    batches : int
        Calls of `reconstruct`.
    flags : dict
        Number of images with each flag, by the name of the flag.
    latency_ms : dict
        Percentiles by name, such as "p99.9", and "max"; empty before the first image.
    latency_sum_s : float
    last_error : str, or None
        Text of the last error.
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
    """Counts events from any thread, in bounded memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._flags = {str(flag.name).lower(): 0 for flag in Flag}
        self._histogram = HdrHistogram(1, LONGEST_US, DIGITS)
        self._sum_s = 0.0
        self._last_error: str | None = None
        self._last: tuple[int, float] | None = None

    def add(self, count: int = 1, *, to: str) -> None:
        """Increase one field of `Statistics`."""
        with self._lock:
            self._counts[to] = self._counts.get(to, 0) + count

    def fail(self, error: str, *, to: str) -> None:
        """Count an error, and keep its text."""
        self.add(to=to)
        self._last_error = error

    def count_arrival(self, number: int, timestamp: float) -> None:
        """Count an accepted frame, and compare its number and timestamp with those of the previous frame."""
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
        """All counts at one moment, together with counts from elsewhere (``more``)."""
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
