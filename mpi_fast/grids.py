"""Grids as texts."""

from collections.abc import Iterable


def shown(grid: Iterable[int]) -> str:
    """(13, 26) -> "13 x 26"."""
    return " x ".join(map(str, grid))
