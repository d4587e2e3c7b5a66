"""What the registry knows, as rows: the compiler's input, without the database they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal

from bootlink_events import Chap, LayerFormat, Policy

Scope = Literal["client", "group", "default"]
Fault = Literal["missing", "changed", "corrupt"]

DEFAULT_CHANNEL = "production"


@dataclass(frozen=True, slots=True)
class Client:
    """One client."""

    mac: str
    name: str
    group: str | None = None
    address: IPv4Address | None = None
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer file, on top of another or a whole disk."""

    id: str
    below: str | None
    path: str
    format: LayerFormat
    virtual_size: int  # bytes
    file_size: int  # bytes
    mtime_ns: int
    fault: Fault | None = None  # what is wrong with the file, when it was last looked at


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an image. `parent` is the version that it was made from, `layer` what it is read from now:
    a merge puts another layer there, which shows the same `content`."""

    image: str
    number: int
    parent: int | None
    content: str
    layer: str


@dataclass(frozen=True, slots=True)
class Link:
    """What a client, a group or everybody else boots. `key` is a MAC address, a group's name or empty."""

    scope: Scope
    key: str
    image: str
    channel: str | None
    version: int | None  # pinned; exactly one of channel and version is set
    policy: Policy = "discard"
    chap: Chap = "off"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that a plan is compiled from, except the clients themselves."""

    versions: Mapping[tuple[str, int], Version] = field(default_factory=dict)
    layers: Mapping[str, Layer] = field(default_factory=dict)
    channels: Mapping[tuple[str, str], int] = field(default_factory=dict)
    links: Mapping[tuple[Scope, str], Link] = field(default_factory=dict)
    portals: tuple[str, ...] = ()
