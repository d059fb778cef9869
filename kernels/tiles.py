"""Tiles of slices, one for each block of threads: how large, what they cost, and what they need."""

from mpi_fast.kernels.weights import INNER, WIDTH

PITCH, WIDE = 12, 28  # pairs of float16 from pixel to pixel of a tile in shared memory, of 16 and 48 channels
FINE, COARSE = (10, 5), (5, 2)  # sides: what shares most, and what fills a GPU with few frames


def fine_steps(side: int) -> int:
    """Products of 16 x 8 x 16 that a block of fine.cu makes."""
    return 9 * 2 * sum(map(_fragments, (side + 4, side + 2, side)))


def coarse_steps(side: int) -> int:
    """Products of 16 x 8 x 16 that a block of coarse.cu makes."""
    half, inner, out = map(_fragments, (side + 4, side + 2, side))
    return 6 * (9 * half + 27 * inner + 27 * out) + 8 * 3 * out


def fine_shared(side: int, rank: int) -> int:
    """Shared memory of a block of fine.cu, in bytes."""
    return 4 * (((side + 6) ** 2 + (side + 4) ** 2) * PITCH + side**2 * WIDTH + 2 * rank)


def coarse_shared(side: int) -> int:
    """Shared memory of a block of coarse.cu, in bytes."""
    return 4 * ((2 * side + 9) ** 2 * PITCH + (side + 4) ** 2 * WIDE + side**2 * INNER)


def tiling(
    steps: dict[int, int], grid: tuple[int, int], slices: int, frames: int, multiprocessors: int
) -> tuple[int, int]:
    """Side of the tiles, and how many cover an image: those whose rounds of blocks make the fewest products.

    Parameters
    ----------
    steps : dict
        Products of a block, by its side.
    grid : (rows, columns)
        Of a slice.
    slices, frames : int
        Of each image; how many there are at once.
    multiprocessors : int
        Of the GPU.
    """
    counts = {side: slices * -(-grid[0] // side) * -(-grid[1] // side) for side in steps}
    side = min(steps, key=lambda side: -(-counts[side] * frames // multiprocessors) * steps[side])
    return side, counts[side]


def _fragments(side: int) -> int:
    """Of 16 pixels each, in a square."""
    return -(-side * side // 16)
