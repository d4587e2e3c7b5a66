"""Rows of the database as the compiler's input."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import TypeAdapter

from bootlink_events import DhcpOption, LoaderRule
from bootlink_registry.catalogue import (
    OWN_ENTRY,
    Branch,
    Catalogue,
    Choice,
    Client,
    GroupSettings,
    Layer,
    Link,
    OwnLayer,
    Scope,
    Version,
)
from bootlink_registry.database import Connection
from bootlink_registry.starts import start_of

# What belongs to nobody in particular, and to the clients $1, or to all of them where $1 is null.
_LINKS: Final = "SELECT * FROM links WHERE scope <> 'client' OR $1::text[] IS NULL OR key = ANY($1)"
_CHOICES: Final = """
    SELECT * FROM choices WHERE scope <> 'client' OR $1::text[] IS NULL OR key = ANY($1) ORDER BY position
"""
# Of the images $1, that links and the like name: for one client a few of hundreds.
_VERSIONS: Final = "SELECT * FROM versions WHERE image = ANY($1::text[])"
_CHANNELS: Final = "SELECT image, name, version FROM channels WHERE image = ANY($1::text[])"
_LAYERS: Final = """
    WITH RECURSIVE read AS (
        SELECT * FROM layers WHERE id = ANY($1::uuid[]) UNION SELECT l.* FROM layers l JOIN read ON l.id = read.below
    ) SELECT * FROM read
"""
_OPTIONS: Final = TypeAdapter(tuple[DhcpOption, ...])
_LOADERS: Final = TypeAdapter(tuple[LoaderRule, ...])
_BRANCHES: Final = "SELECT * FROM branches WHERE $1::text[] IS NULL OR mac = ANY($1)"
_OWN_LAYERS: Final = "SELECT * FROM own_layers WHERE $1::text[] IS NULL OR mac = ANY($1)"

_HOMES: Final = "SELECT mac, node FROM homes WHERE $1::text[] IS NULL OR mac = ANY($1)"


def client_of(row: Any) -> Client:
    return Client(
        mac=row["mac"], name=row["name"], group=row["group_name"], address=row["address"], disabled=row["disabled"]
    )


def version_of(row: Any) -> Version:
    return Version(
        image=row["image"],
        number=row["number"],
        parent=row["parent"],
        content=str(row["content"]),
        layer=str(row["layer"]),
    )


def layer_of(row: Any) -> Layer:
    return Layer(
        id=str(row["id"]),
        below=str(row["below"]) if row["below"] else None,
        path=row["path"],
        format=row["format"],
        virtual_size=row["virtual_size"],
        file_size=row["file_size"],
        mtime_ns=row["mtime_ns"],
        fault=row["fault"],
    )


def link_of(row: Any) -> Link:
    return Link(
        scope=row["scope"],
        key=row["key"],
        image=row["image"] or "",
        channel=row["channel"],
        version=row["version"],
        policy=row["policy"],
        chap=row["chap"],
        lun=row["lun"],
        title=row["title"],
        menu_seconds=row["menu_seconds"],
        menu_default=row["menu_default"] or OWN_ENTRY,
        own_layer=row["own_layer"],
        start=start_of(row),
    )


def choice_of(row: Any) -> Choice:
    return Choice(
        name=row["name"],
        title=row["title"],
        image=row["image"] or "",
        channel=row["channel"],
        version=row["version"],
        policy=row["policy"],
        start=start_of(row),
    )


def branch_of(row: Any) -> Branch:
    return Branch(mac=row["mac"], image=row["image"], base=row["base"], content=str(row["content"]))


def own_layer_of(row: Any) -> OwnLayer:
    return OwnLayer(
        mac=row["mac"],
        lun=row["lun"],
        image=row["image"],
        version=row["version"],
        layer=str(row["layer"]) if row["layer"] else None,
        content=str(row["content"]),
    )


def group_settings_of(row: Any) -> GroupSettings:
    return GroupSettings(_OPTIONS.validate_python(row["options"]), _LOADERS.validate_python(row["loaders"]))


@dataclass(frozen=True, slots=True)
class Serving:
    """Who serves: the portals there are, of which node each is, and which of them must not serve a layer (a function of
    all layers)."""

    portals: tuple[str, ...]
    nodes: Mapping[str, tuple[str, ...]]  # the same, by node
    unfit: Callable[[Mapping[str, Layer]], Mapping[str, frozenset[str]]]
    full: Mapping[str, str] = field(default_factory=dict)  # portals whose node has no room for more, and why


async def read_catalogue(connection: Connection, serving: Serving, macs: Collection[str] | None = None) -> Catalogue:
    """All that plans are compiled from, but the clients: of images those that something leads to, and of what clients
    have of their own only that of `macs`, if they are named. Wants a transaction that sees one state (repeatable read).
    """
    some = None if macs is None else list(macs)
    links: dict[tuple[Scope, str], dict[int, Link]] = {}
    for row in await connection.fetch(_LINKS, some):
        links.setdefault((row["scope"], row["key"]), {})[row["lun"]] = link_of(row)
    choices: dict[tuple[Scope, str], tuple[Choice, ...]] = {}
    for row in await connection.fetch(_CHOICES, some):
        whose = (row["scope"], row["key"])
        choices[whose] = (*choices.get(whose, ()), choice_of(row))
    branches = [branch_of(row) for row in await connection.fetch(_BRANCHES, some)]
    own_layers = [own_layer_of(row) for row in await connection.fetch(_OWN_LAYERS, some)]
    images = {link.image for held in links.values() for link in held.values()}
    images |= {choice.image for held in choices.values() for choice in held} | {branch.image for branch in branches}
    versions = [version_of(row) for row in await connection.fetch(_VERSIONS, list(images))]
    channels = await connection.fetch(_CHANNELS, list(images))
    tops = {version.layer for version in versions} | {own.layer for own in own_layers if own.layer is not None}
    layers = [layer_of(row) for row in await connection.fetch(_LAYERS, list(tops))]
    groups = await connection.fetch("SELECT name, options, loaders FROM group_settings")
    by_id = {layer.id: layer for layer in layers}
    return Catalogue(
        versions={(version.image, version.number): version for version in versions},
        layers=by_id,
        channels={(row["image"], row["name"]): row["version"] for row in channels},
        links=links,
        choices=choices,
        branches={branch.mac: branch for branch in branches},
        own_layers={(own.mac, own.lun): own for own in own_layers},
        groups={row["name"]: group_settings_of(row) for row in groups},
        homes={row["mac"]: row["node"] for row in await connection.fetch(_HOMES, some)},
        nodes=serving.nodes,
        portals=serving.portals,
        unfit=serving.unfit(by_id),
        full=serving.full,
    )
