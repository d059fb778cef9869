"""The clients of a live stream: each gets pictures at the rate of its connection and delays no other."""

import asyncio
from collections import deque

from mpi_fast.live.messages import Picture

WAITING = 64  # most pictures waiting for one client
AT_ONCE = 32  # most pictures in one message


class Client:
    """Pictures and texts that wait for one client; when full, the oldest pictures are dropped."""

    def __init__(self) -> None:
        self._pictures: deque[Picture] = deque()
        self._texts: dict[str, str] = {}
        self._skipped = 0
        self._filled = asyncio.Event()

    def show(self, picture: Picture) -> None:
        """Append a picture."""
        if len(self._pictures) == WAITING:
            self._pictures.popleft()
            self._skipped += 1
        self._pictures.append(picture)
        self._filled.set()

    def tell(self, kind: str, text: str) -> None:
        """Set a text, replacing an older one of its kind."""
        self._texts[kind] = text
        self._filled.set()

    async def next(self) -> tuple[list[str], list[Picture], int]:
        """Wait for texts or pictures; returns them and the number of pictures dropped since the last call."""
        await self._filled.wait()
        texts, skipped = list(self._texts.values()), self._skipped
        self._texts.clear()
        pictures = [self._pictures.popleft() for _ in range(min(AT_ONCE, len(self._pictures)))]
        if pictures:
            self._skipped = 0
        if not self._pictures:
            self._filled.clear()
        return texts, pictures, skipped


class Hub:
    """All clients of a stream.

    Parameters
    ----------
    most : int
        Largest number of clients at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._clients: set[Client] = set()

    def __len__(self) -> int:
        return len(self._clients)

    def join(self) -> Client | None:
        """A new client; None if there are too many already."""
        if len(self._clients) >= self._most:
            return None
        client = Client()
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """Remove a client."""
        self._clients.discard(client)

    def show(self, picture: Picture) -> None:
        """Send a picture to all clients."""
        for client in self._clients:
            client.show(picture)

    def tell(self, kind: str, text: str) -> None:
        """Send a text to all clients; only the last one of each kind is kept."""
        for client in self._clients:
            client.tell(kind, text)
