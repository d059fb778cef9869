"""Tiles of slices, one for each thread block: their size, cost and shared memory."""

from mpi_fast.kernels.weights import INNER, WIDTH

PITCH, WIDE = 12, 20  # pairs of float16 from pixel to pixel of a tile in shared memory, for 16 and 32 channels
FINE, COARSE = (10, 5), (5, 2)  # sides of tiles: large ones recompute less, small ones fill a GPU with few frames


def fine_steps(side: int) -> int:
    """Number of 16 x 8 x 16 matrix products of a thread block of fine.cu."""
    return 9 * 2 * sum(map(_fragments, (side + 4, side + 2, side)))


def coarse_steps(side: int) -> int:
    """Number of 16 x 8 x 16 matrix products of a thread block of coarse.cu."""
    half, inner, out = map(_fragments, (side + 4, side + 2, side))
    return 4 * (9 * half + 18 * inner + 18 * out) + 8 * 2 * out


def fine_shared(side: int, rank: int) -> int:
    """Shared memory of a thread block of fine.cu, in bytes."""
    return 4 * (((side + 6) ** 2 + (side + 4) ** 2) * PITCH + side**2 * WIDTH + 2 * rank)


def coarse_shared(side: int) -> int:
    """Shared memory of a thread block of coarse.cu, in bytes."""
    return 4 * ((2 * side + 9) ** 2 * PITCH + (side + 4) ** 2 * WIDE + side**2 * INNER)


def tiling(
    steps: dict[int, int], grid: tuple[int, int], slices: int, frames: int, multiprocessors: int
) -> tuple[int, int]:
    """Choose the side of the tiles: the one with the fewest matrix products over all rounds of thread blocks.

    Parameters
    ----------
    steps : dict
        Number of products of a thread block for each side.
    grid : (rows, columns)
        Size of a slice.
    slices, frames : int
        Slices of each image, and number of images.
    multiprocessors : int
        Multiprocessors of the GPU.

    Returns
    -------
    (side, tiles)
        Side of the tiles, and number of tiles that cover all slices of an image.
    """
    counts = {side: slices * -(-grid[0] // side) * -(-grid[1] // side) for side in steps}
    side = min(steps, key=lambda side: -(-counts[side] * frames // multiprocessors) * steps[side])
    return side, counts[side]


def _fragments(side: int) -> int:
    """Number of fragments of 16 pixels in a square of this side."""
    return -(-side * side // 16)
