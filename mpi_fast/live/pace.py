"""The batch size: all waiting frames, but no more than can be reconstructed in time."""

SHARE = 0.4  # share of the latency for one batch: a frame waits for the previous batch and for its own
MEMORY = 0.2  # weight of the last batch in the estimated time of a frame


class Pace:
    """Estimates the time of a frame from past batches.

    Parameters
    ----------
    latency : float
        Time in s within which frames are to be reconstructed.
    largest : int
        Largest batch.
    """

    def __init__(self, latency: float, largest: int) -> None:
        self._seconds, self._largest = SHARE * latency, largest
        self._cost: float | None = None  # time of a frame in s

    def batch(self) -> int:
        """How many frames may be reconstructed at once."""
        if self._cost is None:
            return 1
        return max(1, min(self._largest, int(self._seconds / max(self._cost, 1e-9))))

    def learn(self, frames: int, seconds: float) -> None:
        """Add the time of a batch. The estimate rises at once and falls slowly."""
        cost = seconds / frames
        self._cost = cost if self._cost is None else max(cost, (1 - MEMORY) * self._cost + MEMORY * cost)
