"""Homes: the one block store that holds what lasts of a client.

Theory of operation. What a client keeps (kept, super and own write-backs) lies on the block store that it booted from,
and on no other: on another one it would begin empty, and nobody would know. So a client of which something lasts has a
*home*, a row that names one node. Its plan names the portals of that node alone, and the node itself, so that any other
block store refuses to begin such a boot (see `attach` there). While the node is silent the client cannot boot, and is
told so.

Where homes come from. Each node is asked of whom it holds something that lasts (the *census*): when it appears, at each
connection to NATS, and every CENSUS_SECONDS. Whoever is held by no node is given one of those that were asked, before
the first plan that lets it write something that lasts. Where two nodes hold something of one client, it is at home
where it booted last.

A home moves only where nothing can lie there: no census found anything, and no boot of the client was heard of since it
was given (MARGIN before that, for clocks). Otherwise an administrator must say that what lies there is given up
(`leave`), and only while the node is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final

from bootlink_events import BootId
from bootlink_events.commands import ListLasting
from bootlink_registry import outbox
from bootlink_registry.database import Connection
from bootlink_registry.nodes import NodeWatch
from bootlink_registry.problems import conflict, not_found
from bootlink_runtime import Bus, BusUnavailable, CommandError, Logger, rpc

CENSUS_SECONDS: Final = 300.0  # between censuses of a node that stays: its folder may have been put back from a copy
TICK_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.2  # after a node that has just announced itself did not answer
TRIES: Final = 2  # of one census; what does not answer then is given nobody while another node does
PATIENCE_SECONDS: Final = 12.0  # that plans wait for a census: TRIES times an unanswered command
MARGIN: Final = timedelta(minutes=1)  # by which clocks of nodes may differ; commands allow five seconds

# What a census found. Moves a client's home only where it booted later, or where its home was never used; says whose.
_TAKE_IN: Final = """
    WITH taken AS (
        INSERT INTO homes (mac, node, boot_id, held)
        SELECT mac, $1, boot_id, true FROM unnest($2::text[], $3::uuid[]) AS found (mac, boot_id)
        ON CONFLICT (mac) DO UPDATE SET node = excluded.node, boot_id = excluded.boot_id, held = true
        WHERE homes.node = excluded.node OR excluded.boot_id > homes.boot_id OR NOT homes.held AND NOT EXISTS (
            SELECT FROM boots b WHERE b.mac = homes.mac AND b.started >= homes.since - $4::interval)
        RETURNING mac
    )
    SELECT mac FROM taken LEFT JOIN homes before USING (mac) WHERE before.node IS DISTINCT FROM $1
"""
# Those clients, of the ones that are named, of which something lasts by their links, menus and branches. A link that
# another one overrules counts, too: who has a home without need loses nothing.
_GIVE: Final = """
    WITH wanted AS (
        SELECT mac, group_name FROM clients WHERE $1 OR mac = ANY($2::text[]) OR group_name = ANY($3::text[])
    ), lasting AS (
        SELECT scope, key FROM links WHERE policy <> 'discard'
        UNION SELECT scope, key FROM choices WHERE policy <> 'discard'
    ), needing AS (
        SELECT w.mac FROM wanted w JOIN branches b ON b.mac = w.mac
        UNION SELECT w.mac FROM wanted w JOIN lasting l ON l.scope = 'client' AND l.key = w.mac
        UNION SELECT w.mac FROM wanted w JOIN lasting l ON l.scope = 'group' AND l.key = w.group_name
        UNION SELECT w.mac FROM wanted w WHERE EXISTS (SELECT FROM lasting WHERE scope = 'default'))
    INSERT INTO homes (mac, node)
    SELECT mac, ($4::text[])[1 + abs(hashtext(mac)::bigint) % cardinality($4::text[])] FROM needing n
    WHERE NOT EXISTS (SELECT FROM homes h WHERE h.mac = n.mac AND (h.held OR h.node = ANY($5::text[])))
    ON CONFLICT (mac) DO UPDATE SET node = excluded.node, since = now()
    WHERE NOT homes.held AND NOT EXISTS (
        SELECT FROM boots b WHERE b.mac = homes.mac AND b.started >= homes.since - $6::interval)
"""


class Homes:
    """Asks the nodes, and gives each client of which something lasts a home."""

    def __init__(self, bus: Bus, nodes: NodeWatch, on_change: Callable[[], None], log: Logger) -> None:
        """`on_change`: a census is there to be taken in."""
        self._bus = bus
        self._nodes = nodes
        self._on_change = on_change
        self._log = log
        self._asked: dict[str, float] = {}  # by node: when, by the steady clock
        self._answered: set[str] = set()
        self._new: dict[str, dict[str, BootId]] = {}  # censuses that are not taken in yet, by node and MAC address
        self._taking: dict[str, dict[str, BootId]] = {}  # those that are being taken in

    async def run(self) -> None:
        """Take censuses for ever."""
        epoch = 0
        while True:
            if self._bus.connected and self._bus.epoch != epoch:
                epoch = self._bus.epoch
                self._asked.clear()
            live = {info.node for info in self._nodes.nodes.all}
            self._asked = {node: at for node, at in self._asked.items() if node in live}
            due = [node for node in live if time.monotonic() - self._asked.get(node, 0.0) > CENSUS_SECONDS]
            await asyncio.gather(*map(self._ask, due if self._bus.connected else []))
            if self._new:
                self._on_change()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._nodes.changed.wait()

    async def settled(self) -> None:
        """Wait until all nodes that announce themselves were asked; not for ever."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not {info.node for info in self._nodes.nodes.all} <= self._asked.keys():  # noqa: ASYNC110
                    await asyncio.sleep(RETRY_SECONDS / 10)

    async def settle(
        self, connection: Connection, *, everybody: bool, macs: Collection[str], groups: Collection[str]
    ) -> set[str]:
        """Take the censuses in, and give a home to those of the named clients that need one, in the caller's
        transaction. Returns who has another home by a census, named or not: their plans are to be compiled too."""
        self._taking = dict(self._new)
        moved: set[str] = set()
        for node, held in self._taking.items():
            rows = await connection.fetch(_TAKE_IN, node, list(held), list(held.values()), MARGIN)
            moved |= {row["mac"] for row in rows}
        live = sorted(info.node for info in self._nodes.nodes.all)
        able = [node for node in live if node in self._answered] or live
        if able:
            await connection.execute(_GIVE, everybody, list(macs), list(groups), able, live, MARGIN)
        return moved

    def taken_in(self) -> None:
        """What `settle` did is committed."""
        for node, census in self._taking.items():
            if self._new.get(node) is census:
                del self._new[node]
        self._taking = {}

    async def _ask(self, node: str) -> None:
        for attempt in range(TRIES):
            try:
                found = await self._census(node)
            except (CommandError, BusUnavailable) as error:
                self._log.debug("census not answered", node=node, problem=str(error))
                if attempt < TRIES - 1:
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    self._answered.discard(node)
            else:
                self._answered.add(node)
                if found:
                    self._new[node] = found
                break
        self._asked[node] = time.monotonic()

    async def _census(self, node: str) -> dict[str, BootId]:
        found: dict[str, BootId] = {}
        after = ""
        while True:
            page = await rpc.call(self._bus, "blockstore", node, ListLasting(after=after))
            found |= {one.mac: one.boot_id for one in page.clients}
            if page.next is None:
                return found
            after = page.next


async def home_of(connection: Connection, mac: str) -> str | None:
    """The node that holds what lasts of this client; None if it has not been given one."""
    node: str | None = await connection.fetchval("SELECT node FROM homes WHERE mac = $1", mac)
    return node


async def leave(connection: Connection, mac: str, name: str, live: Collection[str]) -> None:
    """Give up what a client keeps on a node that is silent: it is given another home. Raises Problem.

    Should the node come back, what lies there stays there, and can be made a version of by its boot.
    """
    node = await home_of(connection, mac)
    if node is None:
        raise not_found(
            f"{name} keeps nothing on a block store", f"bootlink client show {name} tells where its disk comes from"
        )
    if node in live:
        raise conflict(
            f"block store {node}, which holds what {name} keeps, is running",
            f"nothing needs to be given up: start {name} anew",
        )
    await connection.execute("DELETE FROM homes WHERE mac = $1", mac)
    await outbox.recompile(connection, "client", mac)
