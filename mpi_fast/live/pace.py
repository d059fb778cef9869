"""The batch size: as many waiting frames as can be reconstructed in time.

Twice as many frames take at most twice as long, but on several cores perhaps no longer at all. So the limit grows to
what is certain to be in time, and beyond that by trying: by one while full batches are in time. It shrinks when they
are late on average, as much as they are late.
"""

SHARE = 0.4  # share of the latency for one batch: a frame waits for the previous batch and for its own
MEMORY = 0.2  # weight of the last batch in the average time of full ones
PATIENCE = 32  # full batches in time before the next attempt, after one that failed


class Pace:
    """Learns from past batches how many frames are reconstructed in time.

    Parameters
    ----------
    latency : float
        Time in s within which frames are to be reconstructed.
    largest : int
        Largest batch.
    """

    def __init__(self, latency: float, largest: int) -> None:
        self._seconds, self._largest = SHARE * latency, largest
        self._limit, self._before_attempt = 1, 0
        self._average: float | None = None  # time in s of batches as large as the limit

    def batch(self) -> int:
        """How many frames may be reconstructed at once."""
        return self._limit

    def learn(self, frames: int, seconds: float) -> None:
        """Take the time of a batch into account; ``frames`` are those that were reconstructed, bad ones not counted."""
        if frames < self._limit:
            return
        self._average = seconds if self._average is None else (1 - MEMORY) * self._average + MEMORY * seconds
        if self._average <= self._seconds:
            self._before_attempt -= 1
            certain = self._limit * int(self._seconds / max(self._average, 1e-9))
            limit = min(self._largest, max(certain, self._limit + (self._before_attempt < 0)))
            if limit > self._limit:
                self._limit, self._average = limit, None
        elif self._limit > 1:
            in_time = int(self._limit * self._seconds / self._average)
            self._limit, self._average, self._before_attempt = max(1, in_time), None, PATIENCE
