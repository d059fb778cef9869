"""AsyncLive: a live stream for programs with an event loop, which it never blocks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from mpi_fast.live.counters import Statistics
from mpi_fast.live.frames import LiveImage, Reconstructs
from mpi_fast.live.stream import Live


class AsyncLive:
    """A `Live` with awaitable methods: ``await live.submit(...)``, ``async for image in live``.

    Parameters
    ----------
    reconstruct, options
        Parameters of `Live`. Create and use this object in one running event loop; reconstruction has its own thread.
    """

    def __init__(self, reconstruct: Reconstructs, **options: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: set[asyncio.Future[None]] = set()
        self._live = Live(reconstruct, changed=self._notify_waiting, **options)

    def _notify_waiting(self) -> None:
        """Wake all waiting tasks to check again; any thread may call this."""
        with suppress(RuntimeError):  # the loop is closed, so no task waits
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for one in self._waiting:
            if not one.done():
                one.set_result(None)

    async def _wait_for_change(self) -> None:
        """Wait until something was put, taken or closed; changes since the last check are not missed."""
        one = self._loop.create_future()
        self._waiting.add(one)
        try:
            await one
        finally:
            self._waiting.discard(one)

    async def submit(
        self,
        signals: Any,
        number: int | None = None,
        timestamp: float | None = None,
        *,
        empty: bool = False,
        flags: int = 0,
        timeout: float | None = None,
    ) -> None:
        """Submit a frame; see `Live.submit`."""
        with suppress(TimeoutError):  # `Live` raises the error then
            async with asyncio.timeout(timeout):
                while not self._live.has_room:
                    await self._wait_for_change()
        self._live.submit(signals, number, timestamp, empty=empty, flags=flags, timeout=0)

    async def get(self, timeout: float | None = None) -> LiveImage | None:
        """Fetch the next image; see `Live.get`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._live.has_image and not self._live.ended:
                    await self._wait_for_change()
        return self._live.get(timeout=0)

    async def __aiter__(self) -> AsyncIterator[LiveImage]:
        """Yield images until the stream is finished or closed."""
        while (image := await self.get()) is not None:
            yield image

    @property
    def stream(self) -> Live:
        """The underlying stream, for threads that submit."""
        return self._live

    def finish(self) -> None:
        """See `Live.finish`."""
        self._live.finish()

    async def close(self) -> None:
        """See `Live.close`."""
        await asyncio.to_thread(self._live.close)

    def statistics(self) -> Statistics:
        """See `Live.statistics`."""
        return self._live.statistics()

    def metrics(self) -> str:
        """See `Live.metrics`."""
        return self._live.metrics()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
