"""A bounded queue between a thread that produces items and a thread that consumes them."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

Item = TypeVar("Item")
WhenFull = Literal["newest", "block", "error"]


class Line(Generic[Item]):
    """First in, first out.

    Parameters
    ----------
    length : int
        Largest number of waiting items.
    when_full : str
        ``newest``: the oldest item is dropped; ``block``: `put` waits; ``error``: the new item is refused.
    changed : callable
        Called after an item was put or taken and after closing, by the thread that did it.

    Attributes
    ----------
    dropped : int
        Number of dropped items.
    """

    def __init__(self, length: int, when_full: WhenFull, changed: Callable[[], None] = lambda: None) -> None:
        self._items: deque[Item] = deque()
        self._length, self._when_full, self._changed = length, when_full, changed
        self._condition = threading.Condition()
        self._closed = False
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def closed(self) -> bool:
        """Whether the queue accepts no more items."""
        return self._closed

    @property
    def full(self) -> bool:
        """Whether the queue is full."""
        return len(self._items) >= self._length

    @property
    def blocks(self) -> bool:
        """Whether `put` would wait."""
        return self._when_full == "block" and self.full and not self._closed

    def put(self, item: Item, timeout: float | None = None) -> bool:
        """Append an item; returns False if the queue is closed or full, with ``block`` after ``timeout`` s."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._condition:
            while self.blocks:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._condition.wait(left)
            if self._closed or (self.full and self._when_full == "error"):
                return False
            if self.full:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._condition.notify_all()
        self._changed()
        return True

    def take(self, most: int | None = None, timeout: float | None = None) -> list[Item]:
        """Wait for an item, and take up to ``most`` or all; none after a timeout, or if closed and empty."""
        with self._condition:
            self._condition.wait_for(lambda: self._items or self._closed, timeout)
            count = len(self._items) if most is None else min(most, len(self._items))
            items = [self._items.popleft() for _ in range(count)]
            self._condition.notify_all()
        self._changed()
        return items

    def close(self, drop: bool = False) -> None:
        """Accept no more items. Waiting items can still be taken, unless ``drop`` is true."""
        with self._condition:
            self._closed = True
            if drop:
                self.dropped += len(self._items)
                self._items.clear()
            self._condition.notify_all()
        self._changed()
