"""Compiled plans as rows: each is numbered when it differs from the one before, and remembered.

They lie here as they lie in the bucket (see `bootlink_events.sharing`): under their keys, and what the clients of a
group have in common is an entry of its own. Whoever has nothing of their own shares that, whatever the reason: each
plan is compiled, and compared.

The row holds an entry's JSON without its revision. What travels is the same JSON with the revision put in front, so
that it is written out once, and ten thousand of them are compared as text.

What is shared changes for all that share it at once, so whoever is to share it no more must have left before: otherwise
it would have, for as long as NATS is away in between, a plan that nobody ever made for it.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from bootlink_events import BootPlan, ClientPart, SharedPart, is_shared, join, mac_token, shared_key
from bootlink_registry import rows
from bootlink_registry.catalogue import Catalogue, Client
from bootlink_registry.compiler import nobody, own_fields, shared_fields, whole_plan
from bootlink_registry.database import Connection

CHUNK: Final = (
    200  # plans compiled in one go, which takes some 10 ms; then whatever waits in this event loop has its turn
)
_SHARES: Final = re.compile(rb'"shares":"([^"\\]*)"\}$')  # of a part, whose last field it is

Entries = Mapping[str, bytes | None]


class Compiler:
    """Makes entries of clients, and of what they share."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._shared: dict[str | None, dict[str, Any]] = {}  # by group
        self.bodies: dict[str, str] = {}  # of the shared parts, by key

    def body(self, client: Client) -> str:
        """The JSON of this client's entry."""
        own, fields = own_fields(self._catalogue, client), shared_fields(self._catalogue, client)
        if fields == self._of_group(client.group):
            return _body(ClientPart(**own, revision=1, shares=shared_key(client.group)))
        return _body(whole_plan(own, fields))

    def _of_group(self, group: str | None) -> dict[str, Any]:
        if group not in self._shared:
            fields = self._shared[group] = shared_fields(self._catalogue, nobody(group))
            self.bodies[shared_key(group)] = _body(SharedPart(**fields, revision=1))
        return self._shared[group]


async def compile_all(
    connection: Connection, serving: rows.Serving, *, everybody: bool, macs: Collection[str], groups: Collection[str]
) -> dict[str, bytes]:
    """The entries of all clients, or of these and those of these groups, by key, as they travel; and before them, what
    the clients of their groups share.

    One that differs from the last has a new revision, and is the last from now on. Wants a transaction that sees one
    state (repeatable read).
    """
    found = await connection.fetch(
        """
        SELECT * FROM clients
        WHERE $1 OR mac = ANY($2::text[]) OR group_name = ANY($3::text[])
        """,
        *(everybody, list(macs), list(groups)),
    )
    catalogue = await rows.read_catalogue(connection, serving, None if everybody else [row["mac"] for row in found])
    compiler = Compiler(catalogue)
    entries: dict[str, bytes] = {}
    for chunk in _chunks(found):
        bodies = {mac_token(row["mac"]): compiler.body(rows.client_of(row)) for row in chunk}
        entries |= await _numbered(connection, bodies)
    return await _numbered(connection, compiler.bodies) | entries


def in_steps(changes: Entries, shown: Mapping[str, bytes], *held: Entries) -> tuple[Entries, ...]:
    """These changes of entries in one or two steps, the first of which is to be stored before the second begins.

    First who shares a part that changes, and will not any more. Who shares another one from now on has a whole plan
    between the two. `shown`: the entries of all that is compiled; `held`: what the bucket has, as far as is known.
    """
    parts = {key for key, value in changes.items() if is_shared(key) and value is not None}
    leaving: dict[str, bytes | None] = {}
    for key, value in changes.items() if parts else ():
        now = _shares(value)
        former = {_shares(entries.get(key)) for entries in held} & parts
        if not is_shared(key) and former - {now}:
            leaving[key] = value if value is None or now is None else _whole(value, shown[now])
    if not leaving:
        return (changes,)
    return leaving, {key: value for key, value in changes.items() if leaving.get(key, b"") != value}


def _shares(entry: bytes | None) -> str | None:
    """The key of the part that this entry shares."""
    found = _SHARES.search(entry) if entry is not None else None
    return found[1].decode() if found else None


def _whole(part: bytes, shared: bytes) -> bytes:
    made = join(ClientPart.model_validate_json(part), SharedPart.model_validate_json(shared))
    return made.model_dump_json().encode()


async def last_revision(connection: Connection, mac: str) -> int | None:
    """The revision of a client's plan that was compiled last; None if none was yet."""
    row = await connection.fetchrow("SELECT revision, body FROM plans WHERE key = $1", mac_token(mac))
    if row is None:
        return None
    shared = json.loads(row["body"]).get("shares")
    other = await connection.fetchval("SELECT revision FROM plans WHERE key = $1", shared) if shared else None
    return max(int(row["revision"]), other or 0)


async def forget(connection: Connection, keys: Collection[str]) -> None:
    """Take out entries that belong to nobody."""
    await connection.execute("DELETE FROM plans WHERE key = ANY($1::text[])", list(keys))


async def _numbered(connection: Connection, bodies: dict[str, str]) -> dict[str, bytes]:
    """The entries as they travel: with a new revision where one differs from the last."""
    held = await connection.fetch("SELECT key, revision, body FROM plans WHERE key = ANY($1::text[])", list(bodies))
    revisions = {row["key"]: row["revision"] for row in held if row["body"] == bodies[row["key"]]}
    changed = [key for key in bodies if key not in revisions]
    if changed:
        written = await connection.fetch(
            """
            INSERT INTO plans (key, revision, body)
            SELECT key, nextval('plan_revision'), body FROM unnest($1::text[], $2::text[]) AS new (key, body)
            ON CONFLICT (key) DO UPDATE SET revision = excluded.revision, body = excluded.body
            RETURNING key, revision
            """,
            *(changed, [bodies[key] for key in changed]),
        )
        revisions |= {row["key"]: row["revision"] for row in written}
    return {key: f'{{"revision":{revisions[key]},{body[1:]}'.encode() for key, body in bodies.items()}


def _chunks(found: list[Any]) -> Iterator[list[Any]]:
    remaining = iter(found)
    while chunk := list(itertools.islice(remaining, CHUNK)):
        yield chunk


def _body(entry: BootPlan | ClientPart | SharedPart) -> str:
    return entry.model_dump_json(exclude={"revision"})
