"""Refuse requests that another site makes a browser send, and add the headers that keep a page to itself."""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("localhost", "127.0.0.1", "::1")
PROBED = ("/healthz", "/metrics")  # by what calls a machine by its address, and learns nothing of images
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:;"
    " connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Guard:
    """An ASGI middleware.

    - A page of another site cannot use this server: its Origin is another than the Host that it calls.
    - A name that another site lets point to this machine (DNS rebinding) is not among `hosts`.

    Args:
        app: what is guarded.
        hosts: names, without a port, by which browsers may call the server; None: any.
    """

    def __init__(self, app: ASGIApp, *, hosts: tuple[str, ...] | None):
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Of an HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # of what is there to GET, the same headers: the server leaves the body out
            scope = {**scope, "method": "GET"}

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        sentence = self._refused(Headers(scope=scope), scope["path"])
        if sentence is None:
            await self.app(scope, receive, send_with_headers)
            return
        body = json.dumps({"error": sentence}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send_with_headers({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _refused(self, headers: Headers, path: str) -> str | None:
        host = headers.get("host", "")
        if self.hosts is not None and name_of(host) not in self.hosts and path not in PROBED:
            if not host:
                return "the request has no Host: send one, such as localhost"
            return f"Host: {host} is not a name of this server: start it with hosts=[{name_of(host)}] if it is"
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"{scheme}://{host.lower()}" for scheme in ("http", "https")):
            return f"Origin: {origin} is another site, and this server answers only its own page"
        return None


def name_of(host: str) -> str:
    """A Host header without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # half an IPv6 address
        return host


def hosts_of(bound: str, given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The names for `Guard` of a server that is bound to an address; given: others, in place of all.

    Raises:
        ValueError: one is no name, but an address with a port, say.
    """
    if given is not None:
        names = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else [given]
        for name in names:
            if not (isinstance(name, str) and name_of(f"[{name}]" if name.count(":") > 1 else name) == name.lower()):
                raise ValueError(f"hosts={name} is not valid: use names alone, as in hosts=[p2p.example.org]")
        return (*LOOPBACK, *(name.lower() for name in names))
    return LOOPBACK if bound in LOOPBACK or bound.startswith("127.") else None
