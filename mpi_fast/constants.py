"""Numerical constants of a bundle's graphs, apart from weights, and a comparison with those of this version.

Some are only in the graphs, others are also in the code around them: scales, thresholds, the treatment of noise. A
graph keeps the constants with which it was made, even if the code changes. They are therefore stored in the manifest,
under its checksum, and a bundle with other constants is refused when it is opened.
"""

from collections.abc import Mapping
from typing import Any

from mpi_fast import likelihood, reduction, uncertainty

VIEWS = (4.0,)  # further spreads, besides a block's own, for which a block gets the data-consistency step as input
UNSURE = 4.0  # the error size is within a factor exp(4) of the posterior deviation given the signals
PLANES = ((1, 2, 3), (2, 1, 3), (3, 1, 2))  # axes (slices, rows, columns) of a volume [., z, y, x]: xy, xz, yz


def orientation(block: int) -> tuple[int, int, int]:
    """How a block of the network cuts volumes, one of `PLANES`: that turns, and every third block turns, too."""
    return PLANES[(block + block // 3) % 3]


def constants() -> dict[str, Any]:
    """The constants of this version by name, as JSON values."""
    values = {
        "VIEWS": VIEWS,
        "UNSURE": UNSURE,
        "PLANES": PLANES,
        "WIDTHS": likelihood.WIDTHS,
        "DETECTION": likelihood.DETECTION,
        "EMPTY": likelihood.EMPTY,
        "CERTAIN": likelihood.CERTAIN,
        "SIGNAL_PER_IMAGE": likelihood.SIGNAL_PER_IMAGE,
        "SNR_CEILING_DB": reduction.SNR_CEILING_DB,
        "LEVELS": uncertainty.LEVELS,
    }
    return {name: _plain(value) for name, value in values.items()}


def differences(made_with: Mapping[str, Any]) -> str:
    """A text that lists differences between a bundle's constants and those of this version; empty if none."""
    ours = constants()
    names = [name for name in {**made_with, **ours} if made_with.get(name) != ours.get(name)]
    return ", ".join(f"{name} = {made_with.get(name)} (here {ours.get(name)})" for name in names)


def _plain(value: Any) -> Any:
    """Convert tuples to lists."""
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
