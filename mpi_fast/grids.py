"""Grids as texts, which of them are planes, and which of them a calibration may have."""

from collections.abc import Iterable, Sequence

MOST_VOXELS = 2**16 - 1  # along an axis
SHORTEST, LONGEST = 1e-6, 10.0  # m, of a field of view; larger ones are probably in mm


def shown(grid: Iterable[int]) -> str:
    """(13, 26) -> "13 x 26"."""
    return " x ".join(map(str, grid))


def is_plane(grid: tuple[int, ...]) -> bool:
    """Whether the network sees images of this grid, (ny, nx) or (nz, ny, nx), as planes, as it does one slice."""
    return len(grid) == 2 or grid[0] == 1


def misshapen(grid: Sequence[int], field_of_view: Sequence[float]) -> str | None:
    """What is wrong with a grid, (ny, nx) or (nz, ny, nx), and its lengths in m along these axes; None if nothing.

    Everything that makes or reads a calibration asks this, so that whatever can be made can be saved and read.
    """
    if len(grid) not in (2, 3) or not all(1 <= count <= MOST_VOXELS for count in grid):
        return (
            f"grid {tuple(grid)}: expected the voxels of a plane (ny, nx) or a volume (nz, ny, nx), positive whole "
            f"numbers up to {MOST_VOXELS}"
        )
    # NaN is in no range.
    if len(field_of_view) != len(grid) or not all(SHORTEST <= length <= LONGEST for length in field_of_view):
        count = ("two", "three")[len(grid) - 2]
        return f"field of view {tuple(field_of_view)}: expected {count} lengths in m from {SHORTEST:g} to {LONGEST:g}"
    return None
