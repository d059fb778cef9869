"""Compare bandwidth, samples, cycle and dividers, which all determine the length of a period."""

from __future__ import annotations

import math

from mpi_fast.mdf.acquisition import Acquisition
from mpi_fast.mdf.datasets import Datasets

_BANDWIDTH, _CYCLE = "/acquisition/receiver/bandwidth", "/acquisition/drivefield/cycle"
_MOST_CYCLES = 999  # in one period; a factor of 1000 is a wrong unit
_TOLERANCE = 1e-3  # relative: cycles are stated to a few digits


def check_sampling(datasets: Datasets, acquisition: Acquisition) -> None:
    """Check that a sampled period is one or several cycles of the drive field.

    Raises
    ------
    FileFormatError
        For a contradiction; the message names both values, or a unit that is probably wrong.
    """
    cycle, base = acquisition.cycle, acquisition.base_frequency
    if not 0 < cycle < math.inf:
        datasets.fail(_CYCLE, f"is {cycle:g} s; a positive number was expected")
    driven = acquisition.divider[acquisition.driven].tolist()
    common = acquisition.common_period if driven else cycle
    if not _is_multiple(cycle, common):
        datasets.fail(
            _CYCLE,
            f"is {1e6 * cycle:.6g} us, but the dividers {', '.join(map(str, driven))} of {base:g} Hz have "
            f"{1e6 * common:.6g} us in common: a multiple of it was expected",
        )
    sampled = acquisition.num_samples / (2 * acquisition.bandwidth)
    most = min(_MOST_CYCLES, acquisition.num_samples / 2)
    if _is_multiple(sampled, cycle, most):
        return
    # Some software includes channels without a drive field in the cycle.
    everything = acquisition.divider[acquisition.divider > 0].tolist()
    if _is_multiple(sampled, common, most) and abs(math.lcm(*everything) / base - cycle) < _TOLERANCE * cycle:
        datasets.warn(_CYCLE, f"of {1e6 * cycle:.6g} us counts channels without drive; {1e6 * common:.6g} us is right")
        return
    for factor, unit in ((1e6, "MHz"), (1e3, "kHz")):
        if _is_multiple(sampled / factor, cycle, most):
            hertz = acquisition.bandwidth * factor
            datasets.fail(_BANDWIDTH, f"is {acquisition.bandwidth:g}, as if in {unit}; {hertz:g} Hz was expected")
    datasets.fail(
        _BANDWIDTH,
        f"is {acquisition.bandwidth:g} Hz, so that {acquisition.num_samples} samples last {1e6 * sampled:.6g} us, but "
        f"a cycle of the drive field is {1e6 * cycle:.6g} us: a multiple of it was expected",
    )


def _is_multiple(duration: float, of: float, most: float = 2.0**31) -> bool:
    ratio = duration / of
    return 1 - _TOLERANCE < ratio <= most * (1 + _TOLERANCE) and abs(ratio - round(ratio)) < _TOLERANCE * ratio
