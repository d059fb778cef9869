"""A reconstructor for live streams whose images show the numbers of their frames, and helpers for its tests."""

import threading
import time
from dataclasses import dataclass, field

import numpy as np

from mpi_fast.reconstruction import Reconstruction


@dataclass
class Echo:
    """Makes images in which every voxel is the real part of the frame's first row; can be slow or raise errors."""

    calibration: object
    seconds: float = 0.0
    raises: object = None
    gate: threading.Event | None = None
    sizes: list[int] = field(default_factory=list)

    def __call__(self, signals, flags=None):
        self.sizes.append(len(signals))
        assert np.isfinite(signals).all()
        if self.gate is not None:
            self.gate.wait(20)
        time.sleep(self.seconds)
        if self.raises is not None and self.raises in signals[:, 0].real:
            raise RuntimeError(f"cannot do {self.raises}")
        image = np.broadcast_to(signals.real[:, :1, None], (len(signals), *self.calibration.grid)).astype(np.float32)
        few = np.ones(len(signals), np.float32)
        return Reconstruction(image, image, few, few, 0.0, None, np.zeros(len(signals), np.uint8))


def shown(images):
    return [float(image.image.flat[0]) for image in images]


def accounted(found):
    """Whether every frame and every image is counted once."""
    gone = found.frames_dropped + found.background + found.images + found.waiting
    return found.frames == gone and found.images == found.delivered + found.images_dropped


def wait_for(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.001)
