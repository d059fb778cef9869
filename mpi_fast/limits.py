"""Limits of numbers that users choose; larger ones are probably typing errors and would need too much memory.

Also the defaults that several modules share.
"""

LARGEST_GRID = 1024  # voxels along an axis
LARGEST_BATCH = 65_536  # frames of one call
LIMITS = {"samples": 4096, "steps": 1000, "seed": 2**64 - 1}  # of `pipelines.Sampling`
EVALUATIONS, MOST_EVALUATIONS = 2, 16  # network evaluations for each frame: default and maximum, see `refinement`
LOWEST_FREQUENCY = 80e3  # Hz, of rows by default; below it the feed-through of the drive field dominates
