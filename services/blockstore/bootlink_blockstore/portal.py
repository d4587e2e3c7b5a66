"""The iSCSI portal: where initiators connect.

It listens, holds the connections (`connection`), and counts what their sessions did.

Time. Every TICK_SECONDS all sessions may ping or give up.

End. When the service stops, operating systems are asked to log out, and have DRAIN_SECONDS for it; firmware cannot be
asked. Then every connection ends.

Limits. Connections that have not logged in are few per address, where one more is refused, and in all, where the oldest
makes room: half-open ones keep nobody out.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import Counter
from collections.abc import Iterable
from typing import Final

from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.connection import Connection
from bootlink_blockstore.journal import Journal
from bootlink_blockstore.scsi.device import Nexus
from bootlink_events.models import InitiatorKind
from bootlink_runtime import Distribution

LOGINS_LIMIT: Final = 1_024  # connections without a login: a room that powers on at once, several times
TICK_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 2.0  # for logouts when the service stops: who does it does it at once
DRAIN_STEP: Final = 0.05
KINDS: Final[tuple[InitiatorKind, ...]] = ("firmware", "os")


class Portal:
    """All connections. `serve` begins, `close` ends."""

    def __init__(self, attachments: Attachments, journal: Journal, advertise: str) -> None:
        self.attachments = attachments
        self.journal = journal
        self.advertise = advertise  # host:port; empty: the address that the initiator itself came to
        self.connections: set[Connection] = set()
        self.logins: Counter[str] = Counter()  # connections that have not logged in, by address
        self.half_open: dict[Connection, None] = {}  # the same, oldest first
        self.turns = Distribution()  # seconds, see `metrics`
        self.tasks = {what: Distribution() for what in ("read", "write", "other")}
        self._past = Nexus()  # what the sessions did that have ended
        self._server: asyncio.Server | None = None
        self._run = secrets.token_hex(3)
        self._serial = 0

    async def serve(self, host: str, port: int) -> tuple[str, int]:
        """Listen. Returns the address bound. OSError if it cannot be."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=1024)
        bound = self._server.sockets[0].getsockname()
        return str(bound[0]), int(bound[1])

    @property
    def listening(self) -> bool:
        return self._server is not None and self._server.is_serving()

    def sessions(self) -> dict[InitiatorKind, int]:
        """How many sessions have a disk, by who holds them."""
        held = dict.fromkeys(KINDS, 0)
        for connection in self.connections:
            if connection.kind is not None:
                held[connection.kind] += 1
        return held

    def done(self, *, size: bool) -> tuple[int, int]:
        """Reads and writes of all sessions so far; or the bytes of them."""
        all_of = [self._past, *(nexus for connection in self.connections for nexus in connection.nexuses.values())]
        if size:
            return sum(one.bytes_read for one in all_of), sum(one.bytes_written for one in all_of)
        return sum(one.reads for one in all_of), sum(one.writes for one in all_of)

    def left(self, nexuses: Iterable[Nexus]) -> None:
        """A session has ended: what it did stays counted."""
        past = self._past
        for nexus in nexuses:
            past.reads += nexus.reads
            past.bytes_read += nexus.bytes_read
            past.writes += nexus.writes
            past.bytes_written += nexus.bytes_written

    def next_name(self) -> str:
        """A session's name in events and logs. The run is in it, as a boot may outlive a restart of the service."""
        self._serial += 1
        return f"{self._run}-{self._serial}"

    def make_room(self) -> None:
        """Where too many connections have not logged in, let the oldest go that waits for nothing of ours: a login
        takes milliseconds, so whoever floods us with half-open ones keeps out his own."""
        if self.logins.total() < LOGINS_LIMIT:
            return
        oldest = next((connection for connection in self.half_open if connection.attaching is None), None)
        if oldest is not None:
            self.journal.count("logins_crowded_out")
            oldest.drop("too many connections without a login")

    def tick(self) -> None:
        """Let sessions ping."""
        now = asyncio.get_running_loop().time()
        for connection in list(self.connections):
            connection.tick(now)

    async def close(self, *, drain: float = 0.0) -> None:
        """Stop listening, and end every connection. Operating systems are asked to log out first, and have `drain`
        seconds for it: what they have in flight ends, and none of it is repeated after they come back."""
        if self._server is not None:
            self._server.close()
        if drain:
            asked = {connection for connection in self.connections if connection.ask_to_log_out(drain)}
            deadline = asyncio.get_running_loop().time() + drain
            while asked & self.connections and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - once
                await asyncio.sleep(DRAIN_STEP)
        connections = list(self.connections)
        await asyncio.gather(*(connection.evict("the block store stops") for connection in connections))
        # A login that waits for its disk ends by itself, and must not open anything after this.
        await asyncio.gather(*(connection.attaching for connection in connections if connection.attaching))


async def ticking(portal: Portal) -> None:
    """Let the portal's sessions see time pass, for ever."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        with contextlib.suppress(RuntimeError):
            portal.tick()
