"""The size of the scanner whose signals come as arrays."""

GRID, SIZE, CHANNELS, SAMPLES = (3, 4), (0.03, 0.04), 2, 30
EMPTY = 0, 5, 13
