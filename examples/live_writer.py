"""Publish frames for ``mpi-fast live tcp://127.0.0.1:5555 -c scanner.h5``; needs pyzmq and NumPy, but not mpi-fast.

python examples/live_writer.py frames.npy [ADDRESS] [FRAMES_PER_SECOND]: repeats an array (frames, channels, samples)
"""

import itertools
import json
import sys
import time

import numpy as np
import zmq


def publish(frames: np.ndarray, address: str, rate: float, count: int | None = None) -> None:
    """Send frames in turn, ``count`` frames or for ever; a subscriber that is too slow misses some."""
    socket = zmq.Context.instance().socket(zmq.PUB)
    socket.bind(address)
    for number in itertools.count() if count is None else range(count):
        signals = np.ascontiguousarray(frames[number % len(frames)], "<f4")
        header = {"version": 1, "number": number, "timestamp": time.time(), "empty": False}
        header |= {"dtype": "<f4", "shape": signals.shape}
        socket.send_multipart([json.dumps(header).encode(), signals])
        time.sleep(1 / rate)
    socket.close()


if __name__ == "__main__":
    publish(np.load(sys.argv[1]), *(sys.argv[2:3] or ["tcp://127.0.0.1:5555"]), float((sys.argv[3:4] or ["100"])[0]))
