"""Counter-based random numbers: the same seed gives the same noise on CPU and GPU, whatever the batching.

A sequential generator ties a number to the order in which numbers are drawn, so a result depends on how
images are batched. Philox4x32-10 (Salmon, Moraes, Dror & Shaw, "Parallel random numbers: as easy as 1, 2, 3",
SC 2011) is a keyed bijection of 128-bit counters instead: the number of a voxel is a pure function of (seed,
sample, step, voxel), and any device computes any of them on its own.

The mapping, as a specification for the CUDA version (all integers are unsigned, 32 bits)::

    key     = (seed & 0xffffffff, seed >> 32)
    counter = (voxel / 4, step, sample, 0)              one call serves the four voxels of a block
    w       = philox4x32_10(counter, key)
    u1      = ((w[0] >> 8) + 1) * 2^-24                 in (0, 1], exact in float32
    u2      = (w[1] >> 8) * 2^-24                       in [0, 1), exact in float32
    r       = sqrt(-2 ln u1)                            at most sqrt(48 ln 2) = 5.768
    voxel 4k     = r cos(2 pi u2),    voxel 4k + 1 = r sin(2 pi u2)
    voxel 4k + 2, voxel 4k + 3                          the same from (w[2], w[3])

24 bits are used because such u1 and u2 are float32 numbers: no device rounds them, so only the last digit
of the elementary functions can differ. Here they are evaluated in float64 and rounded once to float32,
which makes this module the reference. A kernel in float32 with `logf`, `sqrtf` and `sincospif(2 * u2)` (exact
argument; not `sincosf(6.2831853f * u2)`, whose rounded argument alone costs 1e-6) stays within 2e-6 of it.
"""

import operator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpi_fast.errors import InputError

ROUNDS: Final = 10
"""The published default of the 4x32 variant (7 rounds already pass BigCrush)."""

_MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
_WEYL: Final = (0x9E3779B9, 0xBB67AE85)
_MASK: Final = 0xFFFFFFFF
_LANES: Final = 4

Uint64Array = npt.NDArray[np.uint64]
Float32Array = npt.NDArray[np.float32]


def standard_normal(seed: int, samples: int, step: int, voxels: int) -> Float32Array:
    """Draw standard-normal noise images by Box-Muller from Philox4x32-10.

    An element depends on its own (seed, sample, step, voxel) alone: not on the other samples of the call, nor
    on the number of voxels. The head of this module describes the mapping.

    Parameters
    ----------
    seed : int
        The key, 0 <= seed < 2**64.
    samples : int
        S: the samples 0 ... S - 1 are drawn, 0 <= S <= 2**32.
    step : int
        Number of the draw within a sample, 0 <= step < 2**32.
    voxels : int
        Voxels N of an image, 1 <= voxels <= 2**32.

    Returns
    -------
    float32 array (S, N)
        No element exceeds sqrt(48 ln 2) = 5.77 in magnitude.

    Raises
    ------
    InputError
        If an argument is out of its range, or not an integer.
    """
    key = _in_range("seed", seed, 0, 2**64 - 1)
    count = _in_range("samples", samples, 0, 2**32)
    blocks = -(-_in_range("voxels", voxels, 1, 2**32) // _LANES)

    even = np.empty((2, count, blocks), np.uint64)
    odd = np.zeros_like(even)
    even[0] = np.arange(blocks, dtype=np.uint64)
    odd[0] = _in_range("step", step, 0, _MASK)
    even[1] = np.arange(count, dtype=np.uint64)[:, None]

    normal = _box_muller(*_encrypt(even, odd, (key & _MASK, key >> 32)))[..., :voxels]
    return np.ascontiguousarray(normal)


def _encrypt(even: Uint64Array, odd: Uint64Array, key: tuple[int, int]) -> tuple[Uint64Array, Uint64Array]:
    """Apply the ten rounds to counters split into words (0, 2) and (1, 3).

    Parameters
    ----------
    even, odd : uint64 arrays (2, ...)
        The counter's words 0 and 2, and 1 and 3: 32-bit values in 64-bit storage, so that a product of two is
        whole.
    key : (int, int)
        The two key words.

    Returns
    -------
    uint64 arrays (2, ...)
        The output's words 0 and 2, and 1 and 3. The arguments are not changed.
    """
    aligned = (2,) + (1,) * (even.ndim - 1)
    multipliers = np.array(_MULTIPLIERS, np.uint64).reshape(aligned)
    mask, half = np.uint64(_MASK), np.uint64(32)
    for number in range(ROUNDS):
        # The key schedule is a Weyl sequence, which depends only on the number of the round.
        round_key = [(word + number * step) & _MASK for word, step in zip(key, _WEYL, strict=True)]
        product = even * multipliers
        # One round: (x0, x1, x2, x3) <- (hi2 ^ x1 ^ k0, lo2, hi0 ^ x3 ^ k1, lo0). Its swap is the reversal.
        even = (product >> half)[::-1] ^ odd
        even ^= np.array(round_key, np.uint64).reshape(aligned)
        product &= mask
        odd = product[::-1]
    return even, odd


def _box_muller(even: Uint64Array, odd: Uint64Array) -> Float32Array:
    """Map words (2, ..., blocks) to normals (..., 4 blocks): pair p of a block fills lanes 2p and 2p + 1."""
    discarded = np.uint64(8)
    radius = (even >> discarded).astype(np.float64)
    radius += 1.0  # shifts [0, 1) to (0, 1]: the logarithm stays finite
    radius *= 2.0**-24
    np.log(radius, out=radius)
    radius *= -2.0
    np.sqrt(radius, out=radius)
    angle = (odd >> discarded).astype(np.float64)
    angle *= 2.0 * np.pi * 2.0**-24

    lanes = np.empty((*even.shape[1:], _LANES), np.float32)
    for pair in range(2):
        np.multiply(radius[pair], np.cos(angle[pair]), out=lanes[..., 2 * pair])
        np.multiply(radius[pair], np.sin(angle[pair]), out=lanes[..., 2 * pair + 1])
    return lanes.reshape(*even.shape[1:-1], _LANES * even.shape[-1])


def _in_range(name: str, value: Any, low: int, high: int) -> int:
    """Return `value` as an int within [low, high], or raise InputError."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InputError(f"standard_normal: {name} is {value!r}, expected an integer") from None
    if not low <= number <= high:
        raise InputError(f"standard_normal: {name} is {number}, expected {low} <= {name} <= {high}")
    return number
