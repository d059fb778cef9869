"""Grids as texts, and which of them are planes."""

from collections.abc import Iterable


def shown(grid: Iterable[int]) -> str:
    """(13, 26) -> "13 x 26"."""
    return " x ".join(map(str, grid))


def is_plane(grid: tuple[int, ...]) -> bool:
    """Whether the network sees images of this grid, (ny, nx) or (nz, ny, nx), as planes, as it does one slice."""
    return len(grid) == 2 or grid[0] == 1
