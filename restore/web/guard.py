"""Checks before every request: origin, token and size; and security headers of every answer."""

import asyncio
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

SAFE = ("GET", "HEAD")
SILENCE_S = 60  # within an upload
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
WRONG = '<p role="alert">That is not the token. The server may have started anew, with another.</p>'


@dataclass(frozen=True)
class Rules:
    """Which requests are accepted.

    Attributes:
        host: Address that the server is bound to. If it is a loopback address, the Host header must
            be one too, so that a foreign name that resolves to it is refused (DNS rebinding).
        token: Token that every request must carry; "" for none.
        body: Most bytes of a request.
        uploads: Most requests with a body at a time.
        names: Host names under which a proxy serves it.
    """

    host: str
    token: str
    body: int
    uploads: int
    names: frozenset[str] = frozenset()

    def accepts_host(self, host: str) -> bool:
        """Whether a Host header names this server."""
        name = host_name(host)
        return not is_loopback(self.host) or is_loopback(name) or name in self.names


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """Return the name in a Host header, without the port; "" if it is invalid."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return ""


class Guard:
    """ASGI middleware that applies the rules.

    Args:
        app: The application.
        rules: Which requests are accepted.
        is_full: Whether new work is refused; if so, the body of a request is not read.
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
        refusal = self.check(scope, headers)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
            await send(message)

        if refusal:
            await refusal(scope, receive, send_marked)
            return
        if scope["method"] in SAFE:
            await self.app(scope, receive, send_marked)
            return
        self.receiving += 1
        try:
            await self.app(scope, self.limit_body(receive), send_marked)
        finally:
            self.receiving -= 1

    def check(self, scope: Scope, headers: Headers) -> Response | None:
        """Check a request by its headers; return the refusal, or None."""
        why = self.check_origin(headers)
        if why:
            return error_response(403, "FOREIGN", why)
        if self.rules.token and scope["path"] not in OPEN:
            refusal = self.check_token(scope, headers)
            if refusal:
                return refusal
        if scope["method"] in SAFE or scope["method"] == "DELETE":
            return None
        return self.check_room(scope, headers)

    def check_room(self, scope: Scope, headers: Headers) -> Response | None:
        """Check the length of a body, and whether there is room for new work."""
        sent = headers.get("content-length", "0")
        if not (sent.isascii() and sent.isdigit()) or int(sent[:20]) > self.rules.body:
            return self.too_large()
        if scope["path"].endswith("/cancel"):  # makes no work
            return None
        if self.is_full():
            return full("jobs wait")
        if self.receiving >= self.rules.uploads:
            return full("uploads are received")
        return None

    def check_origin(self, headers: Headers) -> str:
        """Return why a request comes from a foreign page; "" if it does not."""
        host = headers.get("host", "")
        if not self.rules.accepts_host(host):
            return "this server answers to localhost alone, and to what --name says"
        origin = headers.get("origin")
        if origin is not None and origin.lower().partition("://")[2] != host.lower():
            hint = "a proxy must pass the Host header on, with its port"
            return f"the request comes from another site, {origin[:200]}, not {host}; {hint}"
        is_visit = headers.get("sec-fetch-mode") == "navigate" and not origin
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not is_visit:
            return "the request comes from another site"
        return ""

    def check_token(self, scope: Scope, headers: Headers) -> Response | None:
        """Check the token; return the refusal, the redirect of a first visit, or None."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["path"] == "/" and "token" in query:
            if self.is_token(query["token"][0]):
                entered = RedirectResponse("./", 303)  # a proxy may add a path
                entered.set_cookie(
                    cookie_name(scope), self.rules.token, httponly=True, samesite="strict"
                )
                return entered
            return HTMLResponse(LOGIN.replace("<form>", f"{WRONG}<form>"), 401)
        kind, _, given = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self.is_token(given.strip()):
            return None
        if self.is_token(read_cookie(headers.get("cookie", ""), cookie_name(scope))):
            return None
        if scope["path"] == "/":
            return HTMLResponse(LOGIN, 401)
        return error_response(401, "TOKEN", "send the token as Authorization: Bearer ...")

    def is_token(self, given: str) -> bool:
        """Compare with the token, in constant time."""
        return hmac.compare_digest(given.encode(), self.rules.token.encode())

    def limit_body(self, receive: Receive) -> Receive:
        """Wrap `receive` to raise an error beyond the limit, whatever Content-Length says.

        A client that is gone without a word would keep its place among the uploads for ever.
        """
        taken, is_whole = 0, False

        async def receive_counted() -> Message:
            nonlocal taken, is_whole
            try:
                async with asyncio.timeout(None if is_whole else SILENCE_S):
                    message = await receive()
            except TimeoutError as error:
                problem = f"nothing of the upload came for {SILENCE_S} s; send it again"
                raise HTTPException(408, problem, {"Connection": "close"}) from error
            if message["type"] == "http.request":
                is_whole = not message.get("more_body", False)
                taken += len(message.get("body", b""))
                if taken > self.rules.body:
                    raise HTTPException(413, self.body_limit)
            return message

        return receive_counted

    @property
    def body_limit(self) -> str:
        """The text that states the limit."""
        return f"at most {self.rules.body >> 20} MiB can be sent at a time"

    def too_large(self) -> Response:
        """Build the refusal of a body that is too large."""
        refusal = error_response(413, "TOO_LARGE", self.body_limit)
        refusal.headers["Connection"] = "close"  # the rest is not waited for
        return refusal


def full(what: str) -> Response:
    """Build the refusal of more work."""
    refusal = error_response(429, "FULL", f"as many {what} as may; try again later")
    refusal.headers["Retry-After"] = "5"
    return refusal


def cookie_name(scope: Scope) -> str:
    """Return the name of the cookie with the token: a host's cookies go to all of its ports."""
    return f"restore_token_{scope['server'][1]}"


def read_cookie(header: str, name: str) -> str:
    """Return the token in a Cookie header; "" if there is none."""
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def error_response(status: int, code: str, error: str) -> JSONResponse:
    """Build an error as {"code": ..., "error": ...}."""
    sendable = error.encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is not
    return JSONResponse({"code": code, "error": sendable}, status)
