"""Who may see the live page: by the name it was called by, by origin, and by token."""

import secrets
from collections.abc import Collection
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

COOKIE = "mpi_fast_live"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Guard:
    """Lets nothing through that was not meant for this page; whoever is refused gets no body, and no reason.

    Parameters
    ----------
    app : ASGI application
    token : str, or None
        In the query of the first request (``?token=``, which is answered by a cookie and an address without it), in a
        cookie, or as ``Authorization: Bearer``.
    hosts : collection of str, or None
        Names by which the page may be called: others are pages of strangers whose names were made to point here. None
        for any, which a token makes harmless.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Collection[str] | None) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or hand on."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not self._is_ours(headers):
            await _refuse(403, scope, receive, send)
        elif self._token is None or self._knows(_bearer(headers)) or self._knows(_cookie(headers)):
            await self._app(scope, receive, send)
        elif scope["type"] == "http" and self._knows(_in_query(scope)):
            await _login_response(self._token)(scope, receive, send)
        else:
            await _refuse(401, scope, receive, send)

    def _is_ours(self, headers: Headers) -> bool:
        host = headers.get("host", "")
        if self._hosts is not None and _name(host) not in self._hosts:
            return False
        origin = headers.get("origin")  # browsers say it with every socket, and programs need not
        return origin is None or urlsplit(origin).netloc == host

    def _knows(self, token: str) -> bool:
        return self._token is not None and secrets.compare_digest(token.encode(), self._token.encode())


def _login_response(token: str) -> Response:
    """Set the cookie, and take the token out of the address, where it could be read over a shoulder."""
    response = RedirectResponse("/", 303, headers=HEADERS)
    response.set_cookie(COOKIE, token, httponly=True, samesite="strict")
    return response


async def _refuse(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    else:
        await Response(status_code=status)(scope, receive, send)


def _bearer(headers: Headers) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


def _in_query(scope: Scope) -> str:
    query: bytes = scope["query_string"]
    return parse_qs(query.decode("latin-1")).get("token", [""])[0]


def _cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def _name(host: str) -> str:
    """``[::1]:80`` -> ``::1``."""
    return urlsplit(f"//{host}").hostname or ""
