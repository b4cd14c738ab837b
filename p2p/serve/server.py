"""Listen at an address, and work until a signal asks to end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from p2p.system import signals

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address of this machine; port 0 is any that is free.

    Raises:
        ValueError: it is not one, or it is in use.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"host={host} is not an address of this machine: use 127.0.0.1, or 0.0.0.0 for all") from error
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        raise ValueError(f"host={host} port={port} cannot be used: {reason}: use another port, or port=0") from error
    return listening


class Server(uvicorn.Server):
    """Ends after the requests that it has, at the first signal; at the second at once. `ready` is called in between."""

    ready: Callable[[], None] = staticmethod(lambda: None)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Also SIGHUP, and what was ignored stays ignored; a signal that was answered is not raised again."""
        signals.answer(self.handle_exit)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Says when it is done."""
        await super().startup(sockets=sockets)
        if self.started:
            self.ready()


def protocol(timeout_s: float) -> type[asyncio.Protocol]:
    """HTTP that closes a connection on which no whole header arrives in that time, or a refused body goes on.

    uvicorn itself waits for ever for the rest of a header, and reads on after a body that was refused.
    """

    class Timed(H11Protocol):
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self.late is not None:
                self.late.cancel()

        def idle(self) -> bool:
            return self.cycle is None or self.cycle.response_complete

        def watch(self) -> None:
            if not self.idle() and self.late is not None:
                self.late.cancel()
                self.late = None
            elif self.idle() and self.late is None:
                self.late = self.loop.call_later(timeout_s, self.close)

        def close(self) -> None:
            self.late = None
            if self.idle():
                self.transport.close()

    return Timed


def run(app: FastAPI, listening: socket.socket, *, timeout_s: float, ready: Callable[[], None]) -> None:
    """Serve until a signal; requests that have begun get their answers, for as long as they may take.

    Args:
        timeout_s: of a request, and of its header.
        ready: called when the server answers.
    """
    config = uvicorn.Config(
        app,
        http=protocol(timeout_s),
        ws="none",
        log_level="error",  # its warnings are of clients that do not speak HTTP
        access_log=False,
        lifespan="on",
        server_header=False,
        timeout_graceful_shutdown=int(timeout_s) + 1,
    )
    server = Server(config)
    server.ready = ready
    server.run(sockets=[listening])
