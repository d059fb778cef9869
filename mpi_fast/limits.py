"""Limits of numbers that users choose; larger ones are probably typing errors and would need too much memory.

Also the defaults that several modules share.
"""

from mpi_fast.errors import InputError

LARGEST_GRID = 1024  # voxels along an axis
LARGEST_BATCH = 65_536  # frames of one call
MOST_THREADS = 1024
LIMITS = {"samples": 4096, "steps": 1000, "seed": 2**64 - 1}  # of `pipelines.Sampling`
EVALUATIONS, MOST_EVALUATIONS = 2, 16  # network evaluations for each frame: default and maximum, see `refinement`
LOWEST_FREQUENCY = 80e3  # Hz, of rows by default; below it the feed-through of the drive field dominates
LARGEST_DECIBELS = 300  # of an SNR, positive or negative: amplitudes 10^15 apart, whose squares fit float32


def decibels(value: float, what: str = "SNR") -> float:
    """An SNR in dB, unchanged; InputError, which says ``what`` it is, for NaN and beyond `LARGEST_DECIBELS`."""
    if not abs(value) <= LARGEST_DECIBELS:
        raise InputError(f"{what} {value} dB: expected a number from {-LARGEST_DECIBELS} to {LARGEST_DECIBELS}")
    return value
