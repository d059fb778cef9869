"""Access control of the live page, by host name, origin and token."""

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
    """Refuses requests that are not authorised for this page, with an empty answer and without a reason.

    Parameters
    ----------
    app : ASGI application
    token : str, or None
        Required token: in the query of the first request (``?token=``, which is answered by a cookie and a redirect to
        an address without it), in a cookie, or as ``Authorization: Bearer``.
    hosts : collection of str, or None
        Host names by which the page may be requested. Other names may belong to foreign sites that were made to resolve
        to this machine (DNS rebinding). None for any name, which is safe with a token.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Collection[str] | None) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it to the application."""
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
        origin = headers.get("origin")  # browsers send it with every socket; other programs need not
        return origin is None or urlsplit(origin).netloc == host

    def _knows(self, token: str) -> bool:
        return self._token is not None and secrets.compare_digest(token.encode(), self._token.encode())


def _login_response(token: str) -> Response:
    """Set the cookie, and redirect to the address without the token, so that it does not stay visible."""
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
