"""Serve an ASGI application inside a service's own event loop, on a port that may be 0."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn

from bootlink_runtime.errors import StartupError

BACKLOG = 128  # connections waiting to be accepted; listings and probes need few
KEEP_ALIVE_SECONDS = 15
GRACE_SECONDS = 2  # for answers under way when the service stops


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the chassis has its own, and one loop may hold several servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int, *, what: str, variable: str) -> socket.socket:
    """A listening TCP socket. StartupError says which setting to change when the address is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise address_error(error, what, host, port, variable) from error
    sock.setblocking(False)
    return sock


def address_error(error: OSError, what: str, host: str, port: int, variable: str) -> StartupError:
    """Why this address is not to be had, in one line, and what to do about it."""
    problem = f"{what} cannot listen on {host}:{port} ({error.strerror})"
    if error.errno == errno.EADDRINUSE:
        return StartupError(
            problem,
            f"another program has this port; `ss -lntup 'sport = :{port}'` names it. Stop it, or set {variable}",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return StartupError(problem, f"ports below 1024 need root or CAP_NET_BIND_SERVICE; or set {variable}")
    if error.errno == errno.EADDRNOTAVAIL:
        return StartupError(problem, f"no network card of this machine has the address {host}; correct {variable}")
    return StartupError(problem, f"correct {variable}")


@contextlib.asynccontextmanager
async def serving(app: Any, sock: socket.socket) -> AsyncIterator[None]:
    """Serve `app` on `sock` for the length of the block; answers under way get GRACE_SECONDS at its end."""
    config = uvicorn.Config(
        app,
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # an address that the peer names itself is no address
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]), name="http")
    try:
        while not server.started and not task.done():  # noqa: ASYNC110 - uvicorn offers no event for it
            await asyncio.sleep(0.005)
        yield
    finally:
        server.should_exit = True
        await task
