"""DHCP packets (RFC 2131): bytes in, `DhcpPacket` out, and back.

How it works. A packet is a fixed header of 236 bytes, the magic cookie and a field of options, each a code, a length
and that many bytes, up to option 255. `decode` reads this once, front to back, and never past its end:

- An option that occurs twice is one option whose value was split; the parts are joined in order (RFC 3396).
- Option 52 says that `file` and/or `sname` hold further options; they are read after the options field, in
  the order that RFC 3396 section 5 gives, and are then empty as names. The encoder never overloads: PXE
  firmware reads both as names.
- Every option of the table in `dhcp_options` is checked here. So whoever holds a `DhcpPacket` may `get` any
  option without fear: the only error that bytes from the wire can cause is `DhcpMalformed`, and only `decode`
  raises it.

A BOOTP client of before RFC 1048 has no cookie, but zeros where options would be (RFC 951 section 3). It is read as a
packet without options, and `cookie` says so, for it is answered in the same way.

Not done on purpose: an options field without its end option is accepted, because a datagram has an end of its
own and some clients rely on it; the contents of 43, 77, 82 and 175 are left alone (see `dhcp_options`).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address
from typing import Any, Final, TypeVar

from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp_options import DhcpMalformed, MessageType, Option

__all__ = ["BOOTREPLY", "BOOTREQUEST", "DhcpMalformed", "DhcpPacket", "MessageType", "decode", "encode", "options"]

T = TypeVar("T")

BOOTREQUEST: Final = 1
BOOTREPLY: Final = 2
ETHERNET: Final = 1  # htype, RFC 1700
ETHERNET_LENGTH: Final = 6
BROADCAST_FLAG: Final = 0x8000  # RFC 2131 section 2, figure 2

MAGIC: Final = b"\x63\x82\x53\x63"  # RFC 2131 section 3
HEADER: Final = struct.Struct("!4BIHH4s4s4s4s16s64s128s")
OPTIONS_AT: Final = HEADER.size + len(MAGIC)
MAX_PACKET: Final = 9216  # a jumbo frame; whatever is longer does not come from a boot LAN
MIN_REPLY: Final = 300  # RFC 1542 section 2.1: BOOTP clients and relays may ignore anything shorter
SNAME_SIZE: Final = 64
FILE_SIZE: Final = 128
OPTIONS_KEPT: Final = 1024
"""Options that are kept as they were last encoded: what all clients of a subnet or a group are told, some ten each."""
OVERLOAD_FILE: Final = 1  # option 52, RFC 2132 section 9.3
OVERLOAD_SNAME: Final = 2

_END: Final = bytes((opt.END,))
NO_ADDRESS: Final = IPv4Address(0)
"""0.0.0.0. In a packet that `decode` made, a field of zeros is this very object."""


@dataclass(slots=True)
class DhcpPacket:
    """One DHCP packet. `options` maps code to value, in wire order. Treat all of it as immutable.

    Not `frozen`: with its sixteen fields a frozen packet takes as long to make as its bytes to read (measured).
    """

    op: int
    xid: int
    chaddr: bytes  # 0 to 16 bytes: hlen is its length
    htype: int = ETHERNET
    hops: int = 0
    secs: int = 0
    flags: int = 0
    ciaddr: IPv4Address = NO_ADDRESS
    yiaddr: IPv4Address = NO_ADDRESS
    siaddr: IPv4Address = NO_ADDRESS
    giaddr: IPv4Address = NO_ADDRESS
    sname: bytes = b""  # up to 64 bytes, without the NULs that fill the field
    file: bytes = b""  # up to 128
    options: Mapping[int, bytes] = field(default_factory=dict)
    cookie: bool = True  # False: plain RFC 951, with nothing where options would be
    _read: dict[int, Any] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )  # options, once asked for

    def get(self, option: Option[T]) -> T | None:
        """The option's value, or None. A packet made by `decode` never raises here."""
        code = option.code
        value = self.options.get(code)
        if value is None:
            return None
        if code not in self._read:
            self._read[code] = option.decode(value)
        read: T = self._read[code]
        return read

    def asks_for(self, option: Option[Any]) -> bool:
        """The client's parameter request list (RFC 2132 section 9.8) names this option."""
        return option.code in self.options.get(opt.PARAMETER_LIST.code, b"")

    @property
    def message_type(self) -> MessageType | None:
        """None for plain BOOTP (RFC 951)."""
        return self.get(opt.MESSAGE_TYPE)

    @property
    def broadcast(self) -> bool:
        """The client cannot receive unicast before it has its address (RFC 2131 section 4.1)."""
        return bool(self.flags & BROADCAST_FLAG)


def options(*pairs: tuple[int, bytes] | None) -> dict[int, bytes]:
    """Options in this order, without those that are None: `options(ROUTER.encode(r) if r else None, ...)`."""
    return dict(pair for pair in pairs if pair is not None)


def decode(data: bytes) -> DhcpPacket:
    """Read one UDP payload. DhcpMalformed if it is not a DHCP or BOOTP packet in every part we know."""
    if not OPTIONS_AT <= len(data) <= MAX_PACKET:
        raise DhcpMalformed(f"{len(data)} bytes, a packet has {OPTIONS_AT} to {MAX_PACKET}")
    cookie = data[HEADER.size : OPTIONS_AT] == MAGIC
    if not cookie and any(data[HEADER.size : OPTIONS_AT]):
        raise DhcpMalformed("no magic cookie")
    op, htype, hlen, hops, xid, secs, flags, ci, yi, si, gi, chaddr, sname, file = HEADER.unpack_from(data)
    if op not in (BOOTREQUEST, BOOTREPLY):
        raise DhcpMalformed(f"op {op} is neither request nor reply")
    if hlen > len(chaddr):
        raise DhcpMalformed(f"hardware address of {hlen} bytes in a field of {len(chaddr)}")

    found: dict[int, bytes] = {}
    if cookie:
        _read_options(data[OPTIONS_AT:], found)
    overload = 0
    if opt.OVERLOAD.code in found:
        overload = opt.OVERLOAD.decode(found.pop(opt.OVERLOAD.code))
        if not 1 <= overload <= OVERLOAD_FILE | OVERLOAD_SNAME:
            raise DhcpMalformed(f"option 52 is {overload}")
        if overload & OVERLOAD_FILE:
            _read_options(file, found)
            file = b""
        if overload & OVERLOAD_SNAME:
            _read_options(sname, found)
            sname = b""
        if opt.OVERLOAD.code in found:
            raise DhcpMalformed("option 52 inside an overloaded field")
    packet = DhcpPacket(
        op,
        xid,
        chaddr[:hlen],
        htype,
        hops,
        secs,
        flags,
        _address(ci),
        _address(yi),
        _address(si),
        _address(gi),
        sname.partition(b"\0")[0],
        file.partition(b"\0")[0],
        found,
        cookie,
    )
    read, checked = packet._read, opt.CHECKED
    for code in checked.keys() & found.keys():
        read[code] = checked[code].decode(found[code])
    return packet


@lru_cache(opt.ADDRESSES_KEPT)
def _address(field: bytes) -> IPv4Address:
    return NO_ADDRESS if field == b"\0\0\0\0" else IPv4Address(field)


def _packed(address: IPv4Address) -> bytes:
    return b"\0\0\0\0" if address is NO_ADDRESS else address.packed


def _read_options(data: bytes, into: dict[int, bytes]) -> None:
    at, end = 0, len(data)
    while at < end:
        code = data[at]
        at += 1
        if code == opt.PAD:
            continue
        if code == opt.END:
            return
        if at == end:
            raise DhcpMalformed(f"option {code} has no length")
        size = data[at]
        at += 1
        if at + size > end:
            raise DhcpMalformed(f"option {code} is {size} bytes long with {end - at} left")
        value = data[at : at + size]
        into[code] = into[code] + value if code in into else value
        at += size


def encode(packet: DhcpPacket) -> bytes:
    """The packet as a UDP payload of at least 300 bytes. ValueError if a field does not fit (our own mistake)."""
    if len(packet.chaddr) > 16 or len(packet.sname) > SNAME_SIZE or len(packet.file) > FILE_SIZE:
        raise ValueError("hardware address, server name or boot file is too long for its field")
    head = HEADER.pack(
        packet.op,
        packet.htype,
        len(packet.chaddr),
        packet.hops,
        packet.xid,
        packet.secs,
        packet.flags,
        _packed(packet.ciaddr),
        _packed(packet.yiaddr),
        _packed(packet.siaddr),
        _packed(packet.giaddr),
        packet.chaddr,
        packet.sname,
        packet.file,
    )
    if not packet.cookie:
        if packet.options:
            raise ValueError("a packet without the cookie has no options")
        return head.ljust(MIN_REPLY, b"\0")
    # 53 first, where sloppy firmware looks for it; 82 last, where RFC 3046 section 2.1 wants it; others as given.
    parts, last = [head, MAGIC], b""
    found = packet.options.get(opt.MESSAGE_TYPE.code)
    if found is not None:
        parts.append(_option(opt.MESSAGE_TYPE.code, found))
    for code, value in packet.options.items():
        if code == opt.RELAY_AGENT.code:
            last = _option(code, value)
        elif code != opt.MESSAGE_TYPE.code:
            parts.append(_option(code, value))
    parts += (last, _END)
    return b"".join(parts).ljust(MIN_REPLY, b"\0")


@lru_cache(OPTIONS_KEPT)
def _option(code: int, value: bytes) -> bytes:
    """One option with its head, or several where the value is too long for one (RFC 3396)."""
    if not opt.PAD < code < opt.END:
        raise ValueError(f"{code} is no option")
    if len(value) <= opt.OPTION_SIZE:
        # An empty value is one option of length 0 (RFC 4039's rapid commit is such a flag).
        return bytes((code, len(value))) + value
    parts = (value[start : start + opt.OPTION_SIZE] for start in range(0, len(value), opt.OPTION_SIZE))
    return b"".join(bytes((code, len(part))) + part for part in parts)
