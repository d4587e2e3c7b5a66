"""A UDP proxy that loses, repeats and reorders, for protocols whose server answers from another port, as TFTP does.

A client sends to `address`. For each client the proxy keeps a path of its own: two sockets, one towards the client and
one towards the server. Whatever port the server answers from is where the client's next datagrams go to. So both
sides see one steady port of the other, as they would without the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

Address = tuple[str, int]

DATAGRAM_MAX: Final = 65_536
PATHS_MAX: Final = 1_000  # clients of one test


@dataclass(frozen=True, slots=True)
class Impairment:
    """What becomes of a datagram: shares from 0 to 1. A late one is overtaken by those after it."""

    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0
    delay: float = 0.03  # seconds that a late one takes


@dataclass
class _Path:
    down: socket.socket
    up: socket.socket
    server: Address


class UdpProxy:
    """Made by `proxied`."""

    def __init__(self, server: Address, impairment: Impairment, seed: int) -> None:
        self._server = server
        self._impairment = impairment
        self._random = random.Random(seed)
        self._loop = asyncio.get_running_loop()
        self._paths: dict[Address, _Path] = {}
        self._sock = _bound()
        self.address: Address = self._sock.getsockname()
        self.passed = 0
        self.lost = 0
        self._loop.add_reader(self._sock, self._from_strangers)

    def close(self) -> None:
        for sock in [self._sock, *(sock for path in self._paths.values() for sock in (path.down, path.up))]:
            self._loop.remove_reader(sock)
            sock.close()

    def _from_strangers(self) -> None:
        for datagram, client in _received(self._sock):
            path = self._paths.get(client) or self._new_path(client)
            self._pass(path.up, datagram, self._server)

    def _new_path(self, client: Address) -> _Path:
        assert len(self._paths) < PATHS_MAX
        path = self._paths[client] = _Path(_bound(), _bound(), self._server)
        self._loop.add_reader(path.up, self._from_server, path, client)
        self._loop.add_reader(path.down, self._from_client, path)
        return path

    def _from_server(self, path: _Path, client: Address) -> None:
        for datagram, server in _received(path.up):
            path.server = server
            self._pass(path.down, datagram, client)

    def _from_client(self, path: _Path) -> None:
        for datagram, _ in _received(path.down):
            self._pass(path.up, datagram, path.server)

    def _pass(self, sock: socket.socket, datagram: bytes, to: Address) -> None:
        luck = self._random.random()
        impairment = self._impairment
        if luck < impairment.lost:
            self.lost += 1
            return
        luck -= impairment.lost
        self.passed += 1
        copies = 2 if luck < impairment.repeated else 1
        late = impairment.repeated <= luck < impairment.repeated + impairment.late
        for _ in range(copies):
            if late:
                self._loop.call_later(impairment.delay, _send, sock, datagram, to)
            else:
                _send(sock, datagram, to)


@contextlib.asynccontextmanager
async def proxied(server: Address, impairment: Impairment, *, seed: int = 1) -> AsyncIterator[UdpProxy]:
    """A proxy in front of `server`, in this event loop, on a free port of 127.0.0.1."""
    proxy = UdpProxy(server, impairment, seed)
    try:
        yield proxy
    finally:
        proxy.close()


def _bound() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.bind(("127.0.0.1", 0))
    return sock


def _received(sock: socket.socket) -> list[tuple[bytes, Address]]:
    found: list[tuple[bytes, Address]] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                found.append(sock.recvfrom(DATAGRAM_MAX))
            except ConnectionError:  # a port that has closed; nothing was received
                continue
    return found


def _send(sock: socket.socket, datagram: bytes, to: Address) -> None:
    if sock.fileno() >= 0:
        with contextlib.suppress(OSError):
            sock.sendto(datagram, to)
