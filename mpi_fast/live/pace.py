"""How many frames are reconstructed at once: as many as wait, but no more than are made in time."""

SHARE = 0.4  # of the latency: a frame waits for the batch before its own, and then for its own
MEMORY = 0.2  # weight of the last batch in what a frame is thought to cost


class Pace:
    """Learns from batches what a frame costs.

    Parameters
    ----------
    latency : float
        In s, in which frames are to be reconstructed.
    largest : int
        Batch.
    """

    def __init__(self, latency: float, largest: int) -> None:
        self._seconds, self._largest = SHARE * latency, largest
        self._cost: float | None = None  # of a frame in s

    def batch(self) -> int:
        """How many frames may be reconstructed at once."""
        if self._cost is None:
            return 1
        return max(1, min(self._largest, int(self._seconds / max(self._cost, 1e-9))))

    def learn(self, frames: int, seconds: float) -> None:
        """Take in what a batch took. Costs that rise are believed at once, and forgotten slowly."""
        cost = seconds / frames
        self._cost = cost if self._cost is None else max(cost, (1 - MEMORY) * self._cost + MEMORY * cost)
