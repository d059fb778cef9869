"""How far numbers may go that people choose: beyond, there is a slip of the keyboard, and no memory for it."""

LARGEST_GRID = 1024  # voxels along an axis
LARGEST_BATCH = 65_536  # frames of one call
LIMITS = {"samples": 4096, "steps": 1000, "seed": 2**64 - 1}  # of `pipelines.Sampling`
EVALUATIONS, MOST_EVALUATIONS = 2, 16  # of the network for each frame, and at most; see `refinement`
