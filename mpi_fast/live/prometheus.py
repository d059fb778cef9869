"""Counters of a live stream in the text format of Prometheus."""

from collections.abc import Callable, Iterator

from mpi_fast.live.counters import PERCENTILES, Statistics
from mpi_fast.optional import optional

with optional("live streams need prometheus-client: pip install 'mpi-fast[live]'"):
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
    from prometheus_client.registry import Collector

COUNTERS = {
    "frames": "Frames taken in",
    "refused": "Frames not taken in: wrong shape, or too many waiting",
    "missing": "Frame numbers that were skipped before they came here",
    "jumps": "Times that number or timestamp went back",
    "background": "Frames marked empty",
    "frames_dropped": "Frames of which no image was made",
    "images": "Images made",
    "images_dropped": "Images that nobody fetched",
    "delivered": "Images that were fetched",
    "failed": "Images for which reconstruction raised an error",
    "batches": "Calls of the reconstruction",
}


class StreamCollector(Collector):
    """Reads the statistics of a stream at every scrape."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        """One family for each counter, one for flags, one for latency."""
        found = self._statistics()
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"mpi_fast_live_{name}", text, value=getattr(found, name))
        yield GaugeMetricFamily("mpi_fast_live_waiting", "Frames that wait", value=found.waiting)
        flags = CounterMetricFamily("mpi_fast_live_flagged", "Images with a flag", labels=["flag"])
        for name, count in found.flags.items():
            flags.add_metric([name], count)
        yield flags
        name = "mpi_fast_live_latency_seconds"
        latency = SummaryMetricFamily(name, "From a frame's arrival to its image")
        for percent in PERCENTILES:
            if f"p{percent:g}" in found.latency_ms:
                latency.add_sample(name, {"quantile": f"{percent / 100:g}"}, found.latency_ms[f"p{percent:g}"] / 1e3)
        latency.add_metric([], count_value=found.images, sum_value=found.latency_sum_s)
        yield latency


def as_text(statistics: Callable[[], Statistics]) -> str:
    """The answer to a scrape."""
    registry = CollectorRegistry()
    registry.register(StreamCollector(statistics))
    return generate_latest(registry).decode()
