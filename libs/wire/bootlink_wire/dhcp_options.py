"""DHCP options as a table: code, name and the kind of value each carries (RFC 2132 and the RFCs named below).

The packet codec keeps every option as raw bytes. A row of this table gives the bytes a type. Rows whose kind is
`opaque` are never interpreted on input, so nothing that a client writes there can make its packet malformed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

PAD: Final = 0
END: Final = 255
ADDRESSES_KEPT: Final = 16_384
"""Address objects that are kept to be used again: to make one takes as long as to read a whole option. The addresses of
a large room, of its servers and relay agents; 2 MB."""
OPTION_SIZE: Final = 255  # what one length byte can say; longer values are split (RFC 3396)


class DhcpMalformed(Exception):
    """The peer's packet breaks the format. DHCP has no answer for that: it is dropped and counted."""


class MessageType(IntEnum):
    """Option 53, RFC 2132 section 9.6."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """How one type of value is read from an option's bytes and written to them."""

    decode: Callable[[bytes], T]
    encode: Callable[[T], bytes]


@dataclass(frozen=True, slots=True)
class Option(Generic[T]):
    """One row: an option's code, its name and its kind."""

    code: int
    name: str
    kind: Kind[T]

    def decode(self, value: bytes) -> T:
        """The option's value. DhcpMalformed, with the option's name, if the bytes cannot be one."""
        try:
            return self.kind.decode(value)
        except ValueError as error:
            raise DhcpMalformed(f"option {self.code} ({self.name}): {error}") from error

    def encode(self, value: T) -> tuple[int, bytes]:
        """Code and bytes, as `DhcpPacket.options` takes them."""
        return self.code, self.kind.encode(value)


def _exactly(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes where {size} belong")
    return value


@lru_cache(ADDRESSES_KEPT)
def _decode_address(value: bytes) -> IPv4Address:
    return IPv4Address(_exactly(value, 4))


_MESSAGES: Final = {bytes((message,)): message for message in MessageType}  # an enum takes ten times as long to call


def _decode_message(value: bytes) -> MessageType:
    found = _MESSAGES.get(value)
    return found if found is not None else MessageType(_exactly(value, 1)[0])


def _decode_addresses(value: bytes) -> tuple[IPv4Address, ...]:
    if not value or len(value) % 4:
        raise ValueError(f"{len(value)} bytes are no list of addresses")
    return tuple(IPv4Address(value[i : i + 4]) for i in range(0, len(value), 4))


def _decode_words(value: bytes) -> tuple[int, ...]:
    if not value or len(value) % 2:
        raise ValueError(f"{len(value)} bytes are no list of 16-bit numbers")
    return tuple(int.from_bytes(value[i : i + 2]) for i in range(0, len(value), 2))


_PRINTABLE: Final = bytes(byte if 0x20 <= byte < 0x7F else ord("?") for byte in range(256))


def _decode_text(value: bytes) -> str:
    # RFC 2132 section 2: a receiver must cope with trailing NULs. What is not printable ASCII becomes a question mark:
    # these texts end in events, logs and terminals, and anybody on the LAN can write them.
    return value.rstrip(b"\0").translate(_PRINTABLE).decode("ascii")


OPAQUE: Final[Kind[bytes]] = Kind(bytes, bytes)
TEXT: Final[Kind[str]] = Kind(_decode_text, lambda text: text.encode("ascii"))
ADDRESS: Final[Kind[IPv4Address]] = Kind(_decode_address, lambda a: a.packed)
ADDRESSES: Final[Kind[tuple[IPv4Address, ...]]] = Kind(_decode_addresses, lambda a: b"".join(x.packed for x in a))
BYTE: Final[Kind[int]] = Kind(lambda v: _exactly(v, 1)[0], lambda n: n.to_bytes(1))
WORD: Final[Kind[int]] = Kind(lambda v: int.from_bytes(_exactly(v, 2)), lambda n: n.to_bytes(2))
WORDS: Final[Kind[tuple[int, ...]]] = Kind(_decode_words, lambda n: b"".join(x.to_bytes(2) for x in n))
LONG: Final[Kind[int]] = Kind(lambda v: int.from_bytes(_exactly(v, 4)), lambda n: n.to_bytes(4))
MESSAGE: Final[Kind[MessageType]] = Kind(_decode_message, lambda m: m.to_bytes(1))

SUBNET_MASK: Final = Option(1, "subnet mask", ADDRESS)
ROUTER: Final = Option(3, "router", ADDRESSES)
DNS: Final = Option(6, "domain name servers", ADDRESSES)
HOST_NAME: Final = Option(12, "host name", TEXT)
DOMAIN_NAME: Final = Option(15, "domain name", TEXT)
BROADCAST_ADDRESS: Final = Option(28, "broadcast address", ADDRESS)
NTP_SERVERS: Final = Option(42, "time servers", ADDRESSES)
VENDOR_SPECIFIC: Final = Option(43, "vendor-specific", OPAQUE)  # PXE's own options are inside, PXE 2.1 table 2-1
REQUESTED_ADDRESS: Final = Option(50, "requested address", ADDRESS)
LEASE_TIME: Final = Option(51, "lease time", LONG)
OVERLOAD: Final = Option(52, "overload", BYTE)
MESSAGE_TYPE: Final = Option(53, "message type", MESSAGE)
SERVER_ID: Final = Option(54, "server identifier", ADDRESS)
PARAMETER_LIST: Final = Option(55, "parameter request list", OPAQUE)
MESSAGE_TEXT: Final = Option(56, "message", TEXT)
MAX_MESSAGE_SIZE: Final = Option(57, "maximum message size", WORD)
RENEWAL_TIME: Final = Option(58, "renewal time T1", LONG)
REBINDING_TIME: Final = Option(59, "rebinding time T2", LONG)
VENDOR_CLASS: Final = Option(60, "vendor class", TEXT)
CLIENT_ID: Final = Option(61, "client identifier", OPAQUE)
TFTP_SERVER_NAME: Final = Option(66, "TFTP server name", TEXT)
BOOT_FILE_NAME: Final = Option(67, "boot file name", TEXT)
USER_CLASS: Final = Option(77, "user class", OPAQUE)  # RFC 3004; iPXE writes its bare name, so it stays raw
RELAY_AGENT: Final = Option(82, "relay agent information", OPAQUE)  # RFC 3046: echoed verbatim, as the last option
CLIENT_ARCHITECTURE: Final = Option(93, "client architecture", WORDS)  # RFC 4578 section 2.1: a list
CLIENT_INTERFACE: Final = Option(94, "client network interface", OPAQUE)  # RFC 4578 section 2.2
CLIENT_UUID: Final = Option(97, "client machine UUID", OPAQUE)  # RFC 4578 section 2.3: echoed verbatim
SUBNET_SELECTION: Final = Option(118, "subnet selection", ADDRESS)  # RFC 3011
DOMAIN_SEARCH: Final = Option(119, "domain search", OPAQUE)  # RFC 3397
TFTP_SERVERS: Final = Option(150, "TFTP server addresses", ADDRESSES)  # RFC 5859
IPXE: Final = Option(175, "iPXE encapsulated", OPAQUE)
INITIATOR_NAME: Final = Option(203, "iSCSI initiator name", TEXT)  # iPXE's; RFC 3679 leaves the code free

ROWS: Final[tuple[Option[Any], ...]] = (
    SUBNET_MASK,
    ROUTER,
    DNS,
    HOST_NAME,
    DOMAIN_NAME,
    BROADCAST_ADDRESS,
    NTP_SERVERS,
    VENDOR_SPECIFIC,
    REQUESTED_ADDRESS,
    LEASE_TIME,
    OVERLOAD,
    MESSAGE_TYPE,
    SERVER_ID,
    PARAMETER_LIST,
    MESSAGE_TEXT,
    MAX_MESSAGE_SIZE,
    RENEWAL_TIME,
    REBINDING_TIME,
    VENDOR_CLASS,
    CLIENT_ID,
    TFTP_SERVER_NAME,
    BOOT_FILE_NAME,
    USER_CLASS,
    RELAY_AGENT,
    CLIENT_ARCHITECTURE,
    CLIENT_INTERFACE,
    CLIENT_UUID,
    SUBNET_SELECTION,
    DOMAIN_SEARCH,
    TFTP_SERVERS,
    IPXE,
    INITIATOR_NAME,
)
OPTIONS: Final[Mapping[int, Option[Any]]] = {row.code: row for row in ROWS}
CHECKED: Final[Mapping[int, Option[Any]]] = {row.code: row for row in ROWS if row.kind not in (OPAQUE, TEXT)}
"""Those whose bytes can be wrong."""

# Sub-options, each inside the option named first.
PXE_DISCOVERY_CONTROL: Final = 6  # of 43. PXE 2.1 table 2-1
PXE_USE_OFFERED_FILE: Final = 8  # bit 3: start the boot file of this offer, discover and prompt for nothing
IPXE_NO_PXEDHCP: Final = 176  # of 175. iPXE then does not wait for a proxyDHCP server

RELAY_LINK: Final = 5  # of 82. RFC 3527: the subnet of the client, where giaddr is not in it
RELAY_SERVER_ID: Final = 11  # of 82. RFC 5107: what we are to call ourselves, so that renewals pass the relay agent


def sub_option(value: bytes, code: int) -> bytes | None:
    """The first sub-option of this code; None if there is none, or if what stands before it is torn."""
    at = 0
    while at + 2 <= len(value):
        size = value[at + 1]
        if at + 2 + size > len(value):
            return None
        if value[at] == code:
            return value[at + 2 : at + 2 + size]
        at += 2 + size
    return None


def encapsulate(options: Iterable[tuple[int, bytes]]) -> bytes:
    """Options inside an option, as 43 and 175 carry them (RFC 2132 section 8.4). Each value up to 255 bytes."""
    return b"".join(bytes((code, len(value))) + value for code, value in options) + bytes((END,))


def encapsulated(data: bytes) -> dict[int, bytes]:
    """The options inside an option. DhcpMalformed if one is longer than what holds it."""
    found: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != END:
        if data[at] == PAD:
            at += 1
            continue
        if at + 2 > len(data) or at + 2 + data[at + 1] > len(data):
            raise DhcpMalformed(f"sub-option {data[at]} does not fit its option")
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found
