"""The numbers that a bundle's graphs are made with, beside their weights: this version's, and how a bundle's differ.

Some are in the graphs alone, some in the graphs and in what runs around them: scales, thresholds, how noise is judged.
A graph keeps those that it was made with, whatever happens to the code. So they stand in the manifest, under its seal,
and a bundle whose graphs were made with others is refused when it is opened.
"""

from collections.abc import Mapping
from typing import Any

from mpi_fast import likelihood, reduction, uncertainty

VIEWS = (4.0,)  # spreads, next to a block's own, under which it also sees what the signals would change
UNSURE = 4.0  # the size of the error is within a factor exp(4) of the deviation that the signals leave
PLANES = ((1, 2, 3), (2, 1, 3), (3, 1, 2))  # axes (slices, rows, columns) of a volume [., z, y, x]: xy, xz, yz


def orientation(block: int) -> tuple[int, int, int]:
    """How a block of the network cuts volumes, one of `PLANES`: that turns, and every third block turns, too."""
    return PLANES[(block + block // 3) % 3]


def constants() -> dict[str, Any]:
    """Those of this version, by name, as JSON has them."""
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
    """What a bundle's graphs were made with and this version has otherwise, in words; empty where there is nothing."""
    ours = constants()
    names = [name for name in {**made_with, **ours} if made_with.get(name) != ours.get(name)]
    return ", ".join(f"{name} = {made_with.get(name)} (here {ours.get(name)})" for name in names)


def _plain(value: Any) -> Any:
    """Tuples as lists."""
    return [_plain(one) for one in value] if isinstance(value, tuple) else value
