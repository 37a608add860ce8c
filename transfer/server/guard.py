"""Who may ask: checks of the Host and Origin headers and of the token, before anything else is done."""

import secrets
import socket
import time
from collections.abc import Awaitable, Callable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs

from fastapi.responses import JSONResponse, RedirectResponse, Response

from transfer.server.counters import ServerMetrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
OPEN_PATHS = frozenset({"/health"})  # answered without a token: they say nothing about the run
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_CLOSED_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


class RequestGuard:
    """An ASGI layer around `app` that refuses requests from elsewhere, and counts those that are answered.

    - The Host header names this machine: a page whose own name points at 127.0.0.1 (DNS rebinding) has another.
    - A request that changes something comes from this page, or from a program that is no browser: the headers Origin
      and Sec-Fetch-Site say so. There is no CORS header, so that other pages cannot read what is answered.
    - With a `token`, the header ``Authorization: Bearer TOKEN`` or the cookie that ``/?token=TOKEN`` sets has it.

    Parameters
    ----------
    host : str
        The address that the server listens on.
    paths : callable
        Returns a name, of a fixed number of them, for the path of a request.
    """

    def __init__(self, app: App, *, host: str, token: str, metrics: ServerMetrics, paths: Callable[[str], str]) -> None:
        self.app, self.token, self.metrics, self.paths = app, token, metrics, paths
        self.names = set(LOCAL_NAMES)
        self.any_address = host not in ("127.0.0.1", "localhost", "::1")
        if self.any_address:
            self.names |= {host.lower(), socket.gethostname().lower(), f"{socket.gethostname().lower()}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 500

        async def send_checked(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name.lower() for name, _ in message.get("headers", ())}
                extra = [*_HEADERS, (b"cache-control", b"no-store"), _CLOSED_POLICY]
                message["headers"] = [*message.get("headers", ()), *(pair for pair in extra if pair[0] not in names)]
            await send(message)

        try:
            refused = self._refuse(scope)
            await (refused or self.app)(scope, receive, send_checked)
        finally:
            self.metrics.count_request(self.paths(scope["path"]), status, time.perf_counter() - started)

    def _refuse(self, scope: Scope) -> Response | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if not self._is_own(host):
            return _answer(421, "wrong_host", "this server has another address: open the one that it printed")
        if scope["method"] not in ("GET", "HEAD") and not _is_same_origin(headers, host):
            return _answer(403, "wrong_origin", "requests of other web pages are refused")
        if not self.token or scope["path"] in OPEN_PATHS:
            return None
        return self._check_token(scope, headers, host)

    def _is_own(self, host: str) -> bool:
        name = host.lower() if host.endswith("]") else host.rpartition(":")[0].lower() or host.lower()
        if name in self.names:
            return True
        try:  # an address in numbers is no name that somebody else could point here
            return self.any_address and bool(ip_address(name.strip("[]")))
        except ValueError:
            return False

    def _check_token(self, scope: Scope, headers: dict[str, str], host: str) -> Response | None:
        cookie = f"transfer_token_{host.rpartition(':')[2]}" if ":" in host else "transfer_token"
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(bearer.strip()):
            return None
        if self._is_token(_read_cookie(headers.get("cookie", ""), cookie)):
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == "/" and scope["method"] == "GET" and self._is_token(given):
            page = RedirectResponse("/", 303)  # so that the token does not stay in the address
            page.set_cookie(cookie, self.token, httponly=True, samesite="strict")
            return page
        return _answer(401, "no_token", "open the address with ?token=… that the server printed, or send the header "
                       "Authorization: Bearer TOKEN")  # fmt: skip

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())


def _is_same_origin(headers: dict[str, str], host: str) -> bool:
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2].lower() == host.lower()


def _read_cookie(text: str, name: str) -> str:
    try:
        found = SimpleCookie(text).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _answer(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": message, "code": code}, status)
