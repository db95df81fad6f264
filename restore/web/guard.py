"""What stands before every request: who may ask, how much may be sent, what a browser may do."""

import hmac
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "restore_token"
SAFE = ("GET", "HEAD")
OPEN = ("/health",)  # to a load balancer, which has no token
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
}
LOGIN = """<!doctype html><html lang="en"><meta charset="utf-8"><title>restore</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<form><label>Token, as the server printed it: <input name="token" type="password" autofocus></label>
<button>Enter</button></form></html>"""


@dataclass(frozen=True)
class Rules:
    """Who may ask.

    host      that the server is bound to. On this machine alone, a request must name it so: another
              site whose name leads here is refused.
    token     needed by everyone where it is set.
    body      bytes of a request at most.
    uploads   requests with a body at a time.
    names     that a proxy calls it by, beside its own.
    """

    host: str
    token: str
    body: int
    uploads: int
    names: frozenset[str] = frozenset()

    def knows(self, host: str) -> bool:
        """Whether it is called so."""
        name = named(host)
        return not is_loopback(self.host) or is_loopback(name) or name in self.names


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def named(host: str) -> str:
    """The name of a Host header, without its port; nothing if it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


class Guard:
    """The application behind its rules.

    is_full  whether new work is refused: then its body is not read first.
    """

    def __init__(self, app: ASGIApp, rules: Rules, is_full: Callable[[], bool]):
        self.app, self.rules, self.is_full = app, rules, is_full
        self.receiving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # nothing here speaks WebSocket
        headers = Headers(scope=scope)
        refusal = self.refused(scope, headers)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
            await send(message)

        if refusal:
            await refusal(scope, receive, marked)
            return
        if scope["method"] in SAFE:
            await self.app(scope, receive, marked)
            return
        self.receiving += 1
        try:
            await self.app(scope, self.bounded(receive), marked)
        finally:
            self.receiving -= 1

    def refused(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to a request that may not be, or None."""
        why = self.foreign(headers)
        if why:
            return answer(403, "FOREIGN", why)
        if self.rules.token and scope["path"] not in OPEN:
            refusal = self.unknown(scope, headers)
            if refusal:
                return refusal
        if scope["method"] in SAFE or scope["method"] == "DELETE":
            return None
        sent = headers.get("content-length", "0")
        if not (sent.isascii() and sent.isdigit()) or int(sent[:20]) > self.rules.body:
            return self.too_large()
        makes_work = not scope["path"].endswith("/cancel")
        if makes_work and (self.is_full() or self.receiving >= self.rules.uploads):
            refusal = answer(429, "FULL", "as many jobs wait as may; try again later")
            refusal.headers["Retry-After"] = "5"
            return refusal
        return None

    def foreign(self, headers: Headers) -> str:
        """Why a request comes from a page that is not ours; nothing if it does not."""
        host = headers.get("host", "")
        if not self.rules.knows(host):
            return "this server answers to localhost alone, and to what --name says"
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            return "the request comes from another site"
        is_visit = headers.get("sec-fetch-mode") == "navigate" and not origin
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_visit:
            return "the request comes from another site"
        return ""

    def unknown(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to who does not show the token, or shows it for the first time."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and "token" in query:
            if self.holds(query["token"][0]):
                entered = RedirectResponse("/", 303)
                entered.set_cookie(COOKIE, self.rules.token, httponly=True, samesite="strict")
                return entered
            return HTMLResponse(LOGIN, 401)
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.holds(given.strip()):
            return None
        if self.holds(cookie(headers.get("cookie", ""))):
            return None
        if scope["path"] == "/":
            return HTMLResponse(LOGIN, 401)
        return answer(401, "TOKEN", "send the token as Authorization: Bearer ...")

    def holds(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.rules.token.encode())

    def bounded(self, receive: Receive) -> Receive:
        """The body, as far as it may go, whatever length it claimed."""
        taken = 0

        async def counted() -> Message:
            nonlocal taken
            message = await receive()
            if message["type"] == "http.request":
                taken += len(message.get("body", b""))
                if taken > self.rules.body:
                    raise HTTPException(413, self.most)
            return message

        return counted

    @property
    def most(self) -> str:
        return f"at most {self.rules.body >> 20} MiB can be sent at a time"

    def too_large(self) -> Response:
        refusal = answer(413, "TOO_LARGE", self.most)
        refusal.headers["Connection"] = "close"  # the rest is not waited for
        return refusal


def cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""


def answer(status: int, code: str, error: str) -> JSONResponse:
    sendable = error.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is not
    return JSONResponse({"code": code, "error": sendable}, status)
