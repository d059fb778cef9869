"""Sizes of the scanner of the tests that read signals from arrays."""

GRID, SIZE, CHANNELS, SAMPLES = (3, 4), (0.03, 0.04), 2, 30
EMPTY = 0, 5, 13
