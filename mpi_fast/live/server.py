"""Server of the live page: a source feeds a stream, and its images go to the clients and to the recorder."""

import asyncio
import contextlib
import json
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from importlib import resources
from typing import Any

from mpi_fast.description import UNIT
from mpi_fast.errors import InputError, MPIFastError
from mpi_fast.live.asynchronous import AsyncLive
from mpi_fast.live.frames import Reconstructs
from mpi_fast.live.hub import Client, Hub
from mpi_fast.live.messages import Pictures, pack
from mpi_fast.live.recorder import Recorder
from mpi_fast.live.source import Source, feed
from mpi_fast.mdf import Grid
from mpi_fast.optional import optional

with optional("the live page needs starlette and uvicorn: pip install 'mpi-fast[live]'"):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Route, WebSocketRoute
    from starlette.websockets import WebSocket, WebSocketDisconnect

    from mpi_fast.live.guard import HEADERS, LOOPBACK, Guard

logger = logging.getLogger(__name__)
PAGE = {
    "/": ("index.html", "text/html"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("colours", "region", "live")},
    "/live.css": ("live.css", "text/css"),
}
STATUS_S = 0.5  # time between two messages about the state of the stream
PATIENCE_S = 20.0  # time limit of one message to a client; a client that takes longer is disconnected
LARGEST_COMMAND = 4096  # bytes in one message of a client
TRY_LATER, POLICY = 1013, 1008  # closing codes of WebSockets


@dataclass(frozen=True)
class Access:
    """Access to the page.

    Attributes
    ----------
    host : str
        Address to listen on.
    token : str, or None
        Token that is required unless the address is local to this machine.
    clients : int
        Largest number of clients at a time.
    """

    host: str = "127.0.0.1"
    token: str | None = None
    clients: int = 8

    def __post_init__(self) -> None:
        if needs_token(self.host) and not self.token:
            raise InputError(f"host {self.host}: a token was expected for an address that others can reach")


def needs_token(host: str) -> bool:
    """Whether other machines can reach an address."""
    return host not in LOOPBACK


class Page:
    """The web application, with a stream that runs while it is served.

    Parameters
    ----------
    source : Source
    reconstruct : Reconstructs
    grid : Grid
        Grid of the images in space.
    recorder : Recorder
    access : Access
    facts : dict
        Texts about calibration and model, to be shown on the page.
    options : dict
        Options of `Live`.
    """

    def __init__(
        self,
        source: Source,
        reconstruct: Reconstructs,
        grid: Grid,
        recorder: Recorder,
        access: Access,
        facts: dict[str, str],
        **options: Any,
    ) -> None:
        self._source, self._reconstruct, self._options = source, reconstruct, options
        self._pictures, self._recorder, self._hub = Pictures(grid), recorder, Hub(access.clients)
        self._stopped = threading.Event()
        self._source_state = "running"
        self._live: AsyncLive | None = None
        about = {"unit": UNIT, "source": source.name, "facts": facts, "views": self._pictures.views()}
        self._hello = json.dumps({"kind": "hello", **about})
        routes = [Route(path, self._file) for path in PAGE]
        routes += [Route("/metrics", self._metrics)]
        inner = Starlette(routes=[*routes, WebSocketRoute("/stream", self._stream)], lifespan=self._lifespan)
        self.app = Guard(inner, access.token, None if needs_token(access.host) else LOOPBACK)

    # -- the stream -----------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async with AsyncLive(self._reconstruct, **self._options) as live:
            self._live = live
            feeding = asyncio.create_task(asyncio.to_thread(self._feed, live))
            tasks = [asyncio.create_task(work) for work in (self._show(live), self._report(live))]
            try:
                yield
            finally:
                self._stopped.set()
                await live.close()
                await feeding
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                await asyncio.to_thread(self._recorder.stop)

    def _feed(self, live: AsyncLive) -> None:
        try:
            feed(self._source, live.stream, self._stopped)
            self._source_state = "ended"
        except (MPIFastError, OSError) as error:
            self._source_state = f"failed: {error}"

    async def _show(self, live: AsyncLive) -> None:
        """Pass on every image; without clients it is not converted to a picture."""
        async for image in live:
            self._recorder.put(image)
            if len(self._hub):
                self._hub.show(self._pictures.of(image))

    async def _report(self, live: AsyncLive) -> None:
        while True:
            self._hub.tell("status", self._status(live))
            await asyncio.sleep(STATUS_S)

    def _status(self, live: AsyncLive) -> str:
        about = {"source": self._source_state, "clients": len(self._hub), "recording": asdict(self._recorder.state)}
        return json.dumps({"kind": "status", **about, "statistics": asdict(live.statistics())})

    # -- requests -------------------------------------------------------------------------------------------------

    async def _file(self, request: Request) -> Response:
        name, kind = PAGE[request.url.path]
        content = (resources.files("mpi_fast.live") / "page" / name).read_bytes()
        return Response(content, media_type=kind, headers=HEADERS)

    async def _metrics(self, request: Request) -> Response:
        text = self._live.metrics() if self._live else ""
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4", headers=HEADERS)

    async def _stream(self, websocket: WebSocket) -> None:
        await websocket.accept()  # before it has a place, which a page that never opens would keep
        client = self._hub.join()
        logger.info("a page of %s: %s", websocket.client, "shown" if client else "refused, too many are open")
        if client is None:
            await websocket.close(TRY_LATER, "as many pages as may be are open already")
            return
        sending = asyncio.create_task(self._send(websocket, client))
        try:
            client.tell("hello", self._hello)
            await self._listen(websocket, client)
        finally:
            self._hub.leave(client)
            logger.info("the page of %s is closed", websocket.client)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, websocket: WebSocket, client: Client) -> None:
        """Send at the rate of the client; a client that takes nothing for too long is disconnected."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):
            try:
                while True:
                    texts, pictures, skipped = await client.next()
                    async with asyncio.timeout(PATIENCE_S):
                        for text in texts:
                            await websocket.send_text(text)
                        if pictures:
                            await websocket.send_bytes(pack(pictures, skipped))
            except TimeoutError:
                self._hub.leave(client)
                await websocket.close(TRY_LATER, "nothing was taken for too long")

    async def _listen(self, websocket: WebSocket, client: Client) -> None:
        """Execute a client's commands: ``{"record": true}`` or ``false``. Anything else ends the connection."""
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                wanted = _parse_command(await websocket.receive_text())
                if wanted is None:
                    await websocket.close(POLICY, 'expected {"record": true} or {"record": false}')
                    return
                act: Callable[[], None] = self._recorder.start if wanted else self._recorder.stop
                try:
                    await asyncio.to_thread(act)
                except (MPIFastError, OSError) as error:
                    client.tell("error", json.dumps({"kind": "error", "error": str(error)}))


def _parse_command(text: str) -> bool | None:
    try:
        wish = json.loads(text)
    except (ValueError, RecursionError):
        return None
    wanted = wish.get("record") if isinstance(wish, dict) and len(wish) == 1 else None
    return wanted if isinstance(wanted, bool) else None


def listen(host: str, port: int) -> socket.socket:
    """A socket to serve on; raises OSError if the address is in use, or does not belong to this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


def serve(page: Page, listening: socket.socket) -> None:
    """Serve until the process is interrupted or terminated."""
    config = uvicorn.Config(
        page.app,
        ws="websockets-sansio",
        ws_max_size=LARGEST_COMMAND,
        log_level="warning",
        timeout_graceful_shutdown=2,
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listening])
