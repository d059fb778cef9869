"""Who watches a live stream: each gets what his connection can take, and holds up nobody."""

import asyncio
from collections import deque

from mpi_fast.live.messages import Picture

WAITING = 64  # pictures for one client
AT_ONCE = 32  # in one message


class Client:
    """The pictures that wait for one client, and texts; the oldest pictures give way."""

    def __init__(self) -> None:
        self._pictures: deque[Picture] = deque()
        self._texts: dict[str, str] = {}
        self._skipped = 0
        self._filled = asyncio.Event()

    def show(self, picture: Picture) -> None:
        """Put a picture at the end."""
        if len(self._pictures) == WAITING:
            self._pictures.popleft()
            self._skipped += 1
        self._pictures.append(picture)
        self._filled.set()

    def tell(self, kind: str, text: str) -> None:
        """Put a text, in the place of an older one of its kind."""
        self._texts[kind] = text
        self._filled.set()

    async def next(self) -> tuple[list[str], list[Picture], int]:
        """Wait for texts or pictures; and how many pictures gave way since the last time."""
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
    """All clients.

    Parameters
    ----------
    most : int
        Clients at a time.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._clients: set[Client] = set()

    def __len__(self) -> int:
        return len(self._clients)

    def join(self) -> Client | None:
        """A new client; None if there are as many as there may be."""
        if len(self._clients) >= self._most:
            return None
        client = Client()
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """Forget a client."""
        self._clients.discard(client)

    def show(self, picture: Picture) -> None:
        """Show a picture to all."""
        for client in self._clients:
            client.show(picture)

    def tell(self, kind: str, text: str) -> None:
        """Send all a text of a kind, of which only the last one counts."""
        for client in self._clients:
            client.tell(kind, text)
