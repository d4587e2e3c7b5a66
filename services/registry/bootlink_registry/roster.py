"""Bulk import and export: all clients as one table (see `roster_text`), taken in as a whole or not at all.

An import looks at the state that it would leave: two PCs may swap their names in one file. It is planned by a pure
function from the file and all that is there, under a lock that keeps other writers out, and then written with a
statement for all rows at once. It adds and changes; a client that the file does not name stays as it is.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bootlink_events import Start, from_disk
from bootlink_registry import clients, further_disks, links, outbox, rows, starts
from bootlink_registry.catalogue import DEFAULT_CHANNEL, Client, Link
from bootlink_registry.clients import Change, ClientRow
from bootlink_registry.database import Connection
from bootlink_registry.links import NamedLink
from bootlink_registry.roster_text import Line, Wrong, refuse

EVENTS_AT_ONCE: Final = 500  # made between two waits for the database, so that the API goes on being served
_DRAFT_NAME: Final = "~"  # before a MAC address; no name of a client begins with it


@dataclass(frozen=True, slots=True)
class Known:
    """All that is there and an import depends on."""

    clients: Mapping[str, ClientRow]  # by MAC address
    links: Mapping[str, Link]  # own links for LUN 0, by MAC address
    images: frozenset[str]
    channels: frozenset[tuple[str, str]]
    versions: frozenset[tuple[str, int]]
    further: Mapping[str, Mapping[int, Link]] = field(default_factory=dict)  # own links for other LUNs, by MAC address


@dataclass(slots=True)
class Plan:
    """What an import does. A name that is empty is to be the next of the enrolment pattern."""

    added: list[tuple[Client, str]] = field(default_factory=list)  # with its note
    changed: list[tuple[ClientRow, Client, str]] = field(default_factory=list)  # as it is, as it becomes, its note
    linked: list[Link] = field(default_factory=list)
    unlinked: list[Link] = field(default_factory=list)
    unchanged: int = 0
    wrong: list[Wrong] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many clients a file adds, changes (or their own links) and leaves as they are."""

    added: int
    changed: int
    unchanged: int


async def import_lines(
    connection: Connection, lines: Sequence[Line], *, pattern: str, dry_run: bool, author: str, source: str
) -> Outcome:
    """Take in a file's clients: all of them, or Problem with every line that is wrong. `dry_run` changes nothing."""
    await connection.execute("LOCK TABLE clients, links IN SHARE ROW EXCLUSIVE MODE")  # readers go on
    known = await _known(connection)
    plan = await asyncio.to_thread(make_plan, lines, known)
    if plan.wrong:
        raise refuse(sorted(plan.wrong))
    touched = {row.client.mac for row, _, _ in plan.changed} | {link.key for link in (*plan.linked, *plan.unlinked)}
    outcome = Outcome(
        added=len(plan.added),
        changed=len(touched - {client.mac for client, _ in plan.added}),
        unchanged=plan.unchanged,
    )
    if not dry_run:
        await _write(connection, plan, known, pattern, author, source)
    return outcome


async def export_rows(connection: Connection) -> list[dict[str, Any]]:
    """All clients by name, as `roster_text.write` takes them."""
    found = await connection.fetch(
        """
        SELECT c.mac, c.name, c.group_name AS "group", c.address, c.disabled, c.note,
            l.image, l.channel, l.version, l.policy, l.chap,
            l.boot, l.boot_file, l.keep_san, l.kernel, l.initrds, l.arguments
        FROM clients c LEFT JOIN links l ON l.scope = 'client' AND l.key = c.mac AND l.lun = 0
        ORDER BY c.name
        """
    )
    others = await connection.fetch("SELECT * FROM links WHERE scope = 'client' AND lun > 0")
    further = _further([rows.link_of(row) for row in others])
    return [
        {
            **row,
            "boot": starts.written(starts.start_of(row)) if row["boot"] is not None else "",
            "disks": further_disks.write(further.get(row["mac"], {}).values()),
        }
        for row in found
    ]


def make_plan(lines: Sequence[Line], known: Known) -> Plan:
    """What it takes to make `known` as the file says, and all that stands against it."""
    plan = Plan()
    seen: dict[str, int] = {}
    wanted: list[tuple[int, Client]] = []
    for line in lines:
        row = line.row
        if row.mac in seen:
            plan.wrong.append(Wrong(line.number, f"mac: {row.mac} is on line {seen[row.mac]} already"))
            continue
        seen[row.mac] = line.number
        held = known.clients.get(row.mac)
        given = {name: getattr(row, name) for name in row.model_fields_set & {"group", "address", "disabled"}}
        before = held.client if held else Client(row.mac, "")
        after = dataclasses.replace(before, **given, name=row.name or before.name)
        note = row.note if "note" in row.model_fields_set or held is None else held.note
        wanted.append((line.number, after))
        relinked = _plan_link(plan, line, known) | _plan_further(plan, line, known)
        if held is None:
            plan.added.append((after, note))
        elif (after, note) != (before, held.note):
            plan.changed.append((held, after, note))
        elif not relinked:
            plan.unchanged += 1
    stay = [row.client for mac, row in known.clients.items() if mac not in seen]
    plan.wrong += _clashes(wanted, stay)
    return plan


def _clashes(wanted: Sequence[tuple[int, Client]], stay: Collection[Client]) -> list[Wrong]:
    """Names and addresses that two clients would have."""
    wrong = []
    names = {client.name: f"{client.mac} is called so already" for client in stay}
    addresses = {client.address: f"it is reserved for {client.name} already" for client in stay if client.address}
    for number, client in wanted:
        if client.name and client.name in names:
            wrong.append(Wrong(number, f"name: {client.name}: {names[client.name]}"))
        if client.address and client.address in addresses:
            wrong.append(Wrong(number, f"address: {client.address}: {addresses[client.address]}"))
        names.setdefault(client.name, f"line {number} has it already")
        if client.address:
            addresses.setdefault(client.address, f"line {number} has it already")
    return wrong


def _plan_link(plan: Plan, line: Line, known: Known) -> bool:
    """What becomes of a client's own link. True if anything does."""
    row = line.row
    if "image" not in row.model_fields_set:
        return False
    held = known.links.get(row.mac)
    if row.image is None and row.boot is None:
        if held is not None:
            plan.unlinked.append(held)
        return held is not None
    image = row.image or ""
    channel = row.channel if row.channel or row.version or not image else DEFAULT_CHANNEL
    given = {name: getattr(row, name) for name in row.model_fields_set & {"policy", "chap"}}
    base = held or Link("client", row.mac, image, channel, row.version)
    start = row.boot if "boot" in row.model_fields_set or not from_disk(base.start) else base.start
    link = dataclasses.replace(base, image=image, channel=channel, version=row.version, start=start, **given)
    if link == held:
        return False
    if held is not None and held.own_layer:
        plan.wrong.append(
            Wrong(line.number, f"image: {row.mac} has a layer of its own: change that by `bootlink link rebase`")
        )
    elif (wrong := starts.problem_with(start, image=image, lun=0, policy=link.policy, chap=link.chap)) is not None:
        plan.wrong.append(Wrong(line.number, f"boot: {wrong[0]}; {wrong[1]}"))
    elif missing := _missing(link, known):
        plan.wrong.append(Wrong(line.number, missing))
    else:
        plan.linked.append(link)
    return True


def _plan_further(plan: Plan, line: Line, known: Known) -> bool:
    """What becomes of a client's own links for further disks. True if anything does."""
    row = line.row
    if "disks" not in row.model_fields_set:
        return False
    held = known.further.get(row.mac, {})
    wanted = {link.lun: link for link in row.further()}
    changed = False
    for lun in sorted(held.keys() | wanted.keys()):
        now, link = held.get(lun), wanted.get(lun)
        if now is not None and link is not None:
            link = dataclasses.replace(link, own_layer=now.own_layer)  # of which a file says nothing
        if link == now:
            continue
        changed = True
        if now is not None and now.own_layer:
            why = "has a layer of its own: change that by `bootlink link rebase`"
            plan.wrong.append(Wrong(line.number, f"disks: LUN {lun} of {row.mac} {why}"))
        elif link is None and now is not None:
            plan.unlinked.append(now)
        elif link is not None and (missing := _missing(link, known)):
            plan.wrong.append(Wrong(line.number, f"disks: LUN {lun}: {missing.partition(': ')[2]}"))
        elif link is not None:
            plan.linked.append(link)
    return changed


def _missing(link: Link, known: Known) -> str:
    """What is not there of what a link names, with the column that names it; empty if all is."""
    if link.image and link.image not in known.images:
        return f"image: there is no image {link.image!r}"
    if link.channel is not None and (link.image, link.channel) not in known.channels:
        return f"channel: image {link.image} has no channel {link.channel!r}"
    if link.version is not None and (link.image, link.version) not in known.versions:
        return f"version: image {link.image} has no version {link.version}"
    return ""


async def _known(connection: Connection) -> Known:
    held = await connection.fetch("SELECT * FROM clients")
    own = [rows.link_of(row) for row in await connection.fetch("SELECT * FROM links WHERE scope = 'client'")]
    images = await connection.fetch("SELECT name FROM images FOR KEY SHARE")
    channels = await connection.fetch("SELECT image, name FROM channels")
    versions = await connection.fetch("SELECT image, number FROM versions")
    return Known(
        clients={row["mac"]: ClientRow.of(row) for row in held},
        links={link.key: link for link in own if link.lun == 0},
        further=_further(own),
        images=frozenset(row["name"] for row in images),
        channels=frozenset((row["image"], row["name"]) for row in channels),
        versions=frozenset((row["image"], row["number"]) for row in versions),
    )


def _further(own: Sequence[Link]) -> dict[str, dict[int, Link]]:
    """Of these links those for further disks, by MAC address and LUN."""
    found: dict[str, dict[int, Link]] = {}
    for link in own:
        if link.lun:
            found.setdefault(link.key, {})[link.lun] = link
    return found


async def _write(connection: Connection, plan: Plan, known: Known, pattern: str, author: str, source: str) -> None:
    # Names and addresses are unique at each moment, also in the middle of a swap: first out of the way, then new.
    await connection.execute(
        "UPDATE clients SET name = $2 || mac, address = NULL WHERE mac = ANY($1::text[])",
        *([row.client.mac for row, _, _ in plan.changed], _DRAFT_NAME),
    )
    await connection.execute(
        """
        UPDATE clients c SET name = n.name, group_name = n.group_name, address = n.address, disabled = n.disabled,
            note = n.note, enrolled = false
        FROM unnest($1::text[], $2::text[], $3::text[], $4::inet[], $5::boolean[], $6::text[])
            AS n (mac, name, group_name, address, disabled, note)
        WHERE c.mac = n.mac
        """,
        *_columns([(client, note) for _, client, note in plan.changed]),
    )
    taken = {row.client.name for row in known.clients.values()} | {client.name for client, _ in plan.added}
    nameless = sum(not client.name for client, _ in plan.added)
    names = iter(await _free_names(connection, pattern, nameless, taken))
    added = [(c if c.name else dataclasses.replace(c, name=next(names)), note) for c, note in plan.added]
    await connection.execute(
        """
        INSERT INTO clients (mac, name, group_name, address, disabled, note)
        SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::inet[], $5::boolean[], $6::text[])
        """,
        *_columns(added),
    )
    await connection.execute("DELETE FROM sightings WHERE mac = ANY($1::text[])", [c.mac for c, _ in added])
    await _tell_clients(connection, plan, added, author, source)
    called = {row.client.mac: row.client.name for row in known.clients.values()}
    called |= {client.mac: client.name for client, _ in added} | {
        client.mac: client.name for _, client, _ in plan.changed
    }
    await _write_links(connection, plan, called, author, source)


def _columns(wanted: Sequence[tuple[Client, str]]) -> tuple[list[Any], ...]:
    return (
        [client.mac for client, _ in wanted],
        [client.name for client, _ in wanted],
        [client.group for client, _ in wanted],
        [client.address for client, _ in wanted],
        [client.disabled for client, _ in wanted],
        [note for _, note in wanted],
    )


async def _free_names(connection: Connection, pattern: str, count: int, taken: set[str]) -> list[str]:
    """The next names of the enrolment pattern that are free."""
    names: list[str] = []
    while len(names) < count:
        found = await connection.fetch(
            "SELECT nextval('enrolment') AS n FROM generate_series(1, $1)", count - len(names)
        )
        names += [name for row in found if (name := pattern.format(n=row["n"])) not in taken]
    return names


async def _tell_clients(
    connection: Connection, plan: Plan, added: Sequence[tuple[Client, str]], author: str, source: str
) -> None:
    told: list[tuple[ClientRow, Change, str | None]] = [
        (ClientRow(client, enrolled=False, note=note, created=row.created), "changed", row.client.name)
        for row, client, note in plan.changed
    ]
    now = await connection.fetchval("SELECT now()")
    told += [(ClientRow(client, enrolled=False, note=note, created=now), "added", None) for client, note in added]
    for at in range(0, len(told), EVENTS_AT_ONCE):
        await clients.tell_all(connection, told[at : at + EVENTS_AT_ONCE], author=author, source=source)


def _start_columns(wanted: Sequence[Start | None]) -> list[list[Any]]:
    """The columns of `starts.values_of`, with initrds as one text each."""
    held = [starts.values_of(start) for start in wanted]
    return [[" ".join(row[at]) if isinstance(row[at], list) else row[at] for row in held] for at in range(6)]


async def _write_links(connection: Connection, plan: Plan, called: Mapping[str, str], author: str, source: str) -> None:
    """Write own links, and tell of them; their boot menus stay, or go with them."""
    await connection.execute(
        """
        DELETE FROM links l USING unnest($1::text[], $2::integer[]) AS gone (key, lun)
        WHERE l.scope = 'client' AND l.key = gone.key AND l.lun = gone.lun
        """,
        [link.key for link in plan.unlinked],
        [link.lun for link in plan.unlinked],
    )
    await connection.execute(
        """
        INSERT INTO links (scope, key, lun, image, channel, version, policy, chap,
            boot, boot_file, keep_san, kernel, initrds, arguments)
        SELECT 'client', key, lun, image, channel, version, policy, chap, boot, boot_file, keep_san, kernel,
            -- arrays of arrays must be square: the initrds travel as text
            coalesce(string_to_array(nullif(initrds, ''), ' '), '{}'), arguments
        FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[],
            $7::text[], $8::text[], $9::boolean[], $10::text[], $11::text[], $12::text[], $13::integer[])
            AS new (key, image, channel, version, policy, chap, boot, boot_file, keep_san, kernel, initrds, arguments,
                lun)
        ON CONFLICT (scope, key, lun) DO UPDATE SET image = excluded.image, channel = excluded.channel,
            version = excluded.version, policy = excluded.policy, chap = excluded.chap, boot = excluded.boot,
            boot_file = excluded.boot_file, keep_san = excluded.keep_san, kernel = excluded.kernel,
            initrds = excluded.initrds, arguments = excluded.arguments, changed = now()
        """,
        [link.key for link in plan.linked],
        [link.image or None for link in plan.linked],
        [link.channel for link in plan.linked],
        [link.version for link in plan.linked],
        [link.policy for link in plan.linked],
        [link.chap for link in plan.linked],
        *_start_columns([link.start for link in plan.linked]),
        [link.lun for link in plan.linked],
    )
    changed = [(link, False) for link in plan.linked] + [(link, True) for link in plan.unlinked]
    await outbox.recompile_clients(connection, list(dict.fromkeys(link.key for link, _ in changed)))
    now = await connection.fetchval("SELECT now()")
    menus: dict[str, list[str]] = {}
    of_menus = "SELECT key, name FROM choices WHERE scope = 'client' AND key = ANY($1::text[]) ORDER BY position"
    for row in await connection.fetch(of_menus, [link.key for link in plan.linked]):
        menus.setdefault(row["key"], []).append(row["name"])
    for at in range(0, len(changed), EVENTS_AT_ONCE):
        events = [
            links.changed_event(
                NamedLink(link, called[link.key], now),
                () if link.lun else menus.get(link.key, ()),
                removed=removed,
                author=author,
            )
            for link, removed in changed[at : at + EVENTS_AT_ONCE]
        ]
        await outbox.record_all(connection, events, source=source)
