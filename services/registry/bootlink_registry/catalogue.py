"""What the registry knows, as rows: the compiler's input, without the database they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Literal

from bootlink_events import Chap, DhcpOption, LayerFormat, LoaderRule, Policy, Start

Scope = Literal["client", "group", "default"]
NamedScope = Literal["client", "group"]
UnnamedScope = Literal["default"]
Fault = Literal["missing", "changed", "corrupt"]

DEFAULT_CHANNEL = "production"
OWN_ENTRY = "link"  # the boot menu's first entry: what the link itself names, whatever its image is called


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
    """What a client, a group or everybody else has as one disk. `key` is a MAC address, a group's name or empty.

    The last three say how its boot menu looks where it has one, which only logical unit 0 can.
    """

    scope: Scope
    key: str
    image: str  # empty where it starts from no disk; then neither channel nor version is set
    channel: str | None
    version: int | None  # pinned; else exactly one of channel and version is set
    policy: Policy = "discard"
    chap: Chap = "off"
    lun: int = 0  # 0 is what it boots
    title: str = ""  # in the boot menu; empty: the image's name
    menu_seconds: int = 10  # until the default entry is taken; 0: for ever
    menu_default: str = OWN_ENTRY
    own_layer: bool = False  # a layer of the client's own lies over the pinned version
    start: Start | None = None  # how it boots; None: from its disk


@dataclass(frozen=True, slots=True)
class Choice:
    """What a boot menu offers further: an image, or a start without one (as for links)."""

    name: str
    title: str  # empty: the image's name
    image: str
    channel: str | None
    version: int | None
    policy: Policy = "discard"
    start: Start | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """A super client: it boots this version, whatever its links say, and what it writes may become another one."""

    mac: str
    image: str
    base: int
    content: str  # what the version shows to this branch alone


@dataclass(frozen=True, slots=True)
class OwnLayer:
    """A client's own layer over a version: what was sealed of it, and what the two together show."""

    mac: str
    lun: int
    image: str
    version: int
    layer: str | None  # None while nothing was sealed: then all of it is in the kept write-back
    content: str


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """What the clients of a group are told over DHCP, beside what the dhcp service's own settings say."""

    options: tuple[DhcpOption, ...] = ()  # by code
    loaders: tuple[LoaderRule, ...] = ()  # the first that fits counts


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Everything that a plan is compiled from, except the clients themselves."""

    versions: Mapping[tuple[str, int], Version] = field(default_factory=dict)
    layers: Mapping[str, Layer] = field(default_factory=dict)
    channels: Mapping[tuple[str, str], int] = field(default_factory=dict)
    links: Mapping[tuple[Scope, str], Mapping[int, Link]] = field(default_factory=dict)  # by logical unit
    choices: Mapping[tuple[Scope, str], tuple[Choice, ...]] = field(default_factory=dict)  # in the menu's order
    branches: Mapping[str, Branch] = field(default_factory=dict)  # by MAC address
    own_layers: Mapping[tuple[str, int], OwnLayer] = field(default_factory=dict)  # by MAC address and logical unit
    groups: Mapping[str, GroupSettings] = field(default_factory=dict)  # of those that have some
    homes: Mapping[str, str] = field(default_factory=dict)  # by MAC address: the node that holds what lasts of a client
    nodes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # the portals of each node that serves
    portals: tuple[str, ...] = ()
    unfit: Mapping[str, frozenset[str]] = field(default_factory=dict)  # by layer: portals that must not serve it
    full: Mapping[str, str] = field(default_factory=dict)  # portals where no boot may begin, and why, in words
