"""The network card: its addresses, and the sockets on it. Everything that needs a privilege is opened here."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Final

from bootlink_runtime import StartupError
from bootlink_wire import arp, dhcp

_SIOCGIFFLAGS: Final = 0x8913  # linux/sockios.h
_SIOCGIFADDR: Final = 0x8915
_SIOCGIFNETMASK: Final = 0x891B
_SIOCGIFHWADDR: Final = 0x8927
_SIOCGIFINDEX: Final = 0x8933
_IFREQ: Final = struct.Struct("16s24s")
_ETHERTYPE_IPV4: Final = 0x0800
_ARPHRD_ETHER: Final = 1
_IFF_UP: Final = 0x1  # linux/if.h
_IFF_RUNNING: Final = 0x40  # there is a link
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_SOL_PACKET: Final = 263  # linux/socket.h
_PACKET_IGNORE_OUTGOING: Final = 23  # linux/if_packet.h
_FROM_SERVERS: Final = (
    # A classic BPF program (linux/filter.h): code, jump if true, jump if false, operand. It looks for answers: what
    # relay agents ask comes from port 67, too, and is the machine's.
    (0x30, 0, 0, 23),  # the protocol of the IP header
    (0x15, 0, 8, 17),  # UDP?
    (0x28, 0, 0, 20),  # fragment offset
    (0x45, 6, 0, 0x1FFF),  # a later fragment has no ports
    (0xB1, 0, 0, 14),  # length of the IP header
    (0x48, 0, 0, 14),  # source port
    (0x15, 1, 0, 67),
    (0x15, 0, 2, 4011),
    (0x50, 0, 0, 22),  # op, the first byte behind the UDP header
    (0x15, 1, 0, dhcp.BOOTREPLY),
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0x40000),  # pass
)
_IP_PKTINFO: Final = 8  # linux/in.h
RECEIVE_BUFFER: Final = 1 << 20  # bytes; a room that starts at once: some 1,500 packets wait here while we work
_PRIVILEGE: Final = "run it as root, or give it CAP_NET_BIND_SERVICE and CAP_NET_RAW"


@dataclass(frozen=True, slots=True)
class Card:
    """One network card, by what we need of it."""

    name: str
    index: int
    mac: bytes
    own: IPv4Interface  # our address on it, with its network


def find_card(name: str, wanted: IPv4Address | None) -> Card:
    """Look the card up. StartupError if it is not there, is no Ethernet, or has no IPv4 address (or not `wanted`)."""
    names = sorted(found for _, found in socket.if_nameindex() if found != "lo")
    if not name:
        raise StartupError(
            "no network card is named",
            f"set BOOTLINK_DHCP_INTERFACE to the one that serves the PCs: {', '.join(names)}",
        )
    try:
        index = socket.if_nametoindex(name)
    except OSError as error:
        raise StartupError(
            f"there is no network card {name}", f"set BOOTLINK_DHCP_INTERFACE to one of: {', '.join(names)}"
        ) from error
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        family, mac = struct.unpack("=H6s", _ask(sock, _SIOCGIFHWADDR, name)[:8])
        if family != _ARPHRD_ETHER:
            raise StartupError(f"{name} is not an Ethernet card", "set BOOTLINK_DHCP_INTERFACE to one that is")
        try:
            address = _address(_ask(sock, _SIOCGIFADDR, name, wanted))
            netmask = _address(_ask(sock, _SIOCGIFNETMASK, name, wanted))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            raise StartupError(
                f"{name} has no IPv4 address", f"give it one, such as: ip addr add 10.77.0.1/24 dev {name}"
            ) from error
    if wanted is not None and address != wanted:
        raise StartupError(
            f"{name} does not have the address {wanted}",
            f"set BOOTLINK_DHCP_SERVER_ADDRESS to one it has, such as {address}, or leave it out",
        )
    return Card(name, index, mac, IPv4Interface(f"{address}/{netmask}"))


def reach(card: Card, sock: socket.socket) -> tuple[bool, str]:
    """Whether PCs can reach us over the card now; with what is wrong and what to do, if not. Waits for nothing.

    `sock` is any socket of the card's network namespace. StartupError if the card is gone: sockets on it stay deaf
    for ever, even if one of its name comes back.
    """
    try:
        (index,) = struct.unpack_from("=i", _ask(sock, _SIOCGIFINDEX, card.name))
        if index != card.index:
            raise OSError(errno.ENODEV, "another card of this name")
        (flags,) = struct.unpack_from("=H", _ask(sock, _SIOCGIFFLAGS, card.name))
    except OSError as error:
        raise StartupError(
            f"the network card {card.name} is gone, or was made anew", "bring it back; dhcp must then be started again"
        ) from error
    try:
        address = _address(_ask(sock, _SIOCGIFADDR, card.name, card.own.ip))
    except OSError:  # it has none at all
        address = None
    if not flags & _IFF_UP:
        return False, f"{card.name} is down: ip link set {card.name} up"
    if address != card.own.ip:
        return False, f"{card.name} has lost its address: ip addr add {card.own} dev {card.name}"
    if not flags & _IFF_RUNNING:
        return False, f"{card.name} has no link: look at the cable and the switch"
    return True, f"{card.name} has a link and {card.own}"


def _ask(sock: socket.socket, request: int, name: str, address: IPv4Address | None = None) -> bytes:
    # With an address in the request the kernel tells about that one of the card's addresses (devinet_ioctl).
    about = struct.pack("=HH4s", socket.AF_INET, 0, address.packed) if address else b""
    return _IFREQ.unpack(fcntl.ioctl(sock, request, _IFREQ.pack(name.encode(), about)))[1]  # type: ignore[no-any-return]


def _address(answer: bytes) -> IPv4Address:
    return IPv4Address(answer[4:8])


def open_udp(card: Card, port: int) -> socket.socket:
    """The server's socket: one card only, broadcasts included. StartupError if the port is taken or forbidden."""
    with _closing_on_error(socket.AF_INET, socket.SOCK_DGRAM, 0) as sock:
        # No SO_REUSEADDR: with it a second DHCP server could bind the same port, and each would get half the packets.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.name.encode() + b"\0")
            sock.bind(("", port))
        except PermissionError as error:
            raise StartupError(f"UDP port {port} on {card.name} is not permitted", _PRIVILEGE) from error
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise StartupError(
                f"UDP port {port} on {card.name} is taken by {holder_of_udp_port(port)}",
                f"stop that service (see it with: ss -lunp 'sport = :{port}')",
            ) from error
        return sock


def open_broadcast(card: Card) -> socket.socket:
    """A socket that sends UDP broadcasts over this card alone. StartupError if that is forbidden."""
    try:
        with _closing_on_error(socket.AF_INET, socket.SOCK_DGRAM, 0) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.name.encode() + b"\0")
            return sock
    except PermissionError as error:
        raise StartupError(f"broadcasts on {card.name} are not permitted", _PRIVILEGE) from error


def open_frames(card: Card) -> socket.socket:
    """A socket that sends IPv4 packets to MAC addresses. StartupError if it is forbidden."""
    try:
        # Protocol 0: it receives nothing.
        with _closing_on_error(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
            return sock
    except PermissionError as error:
        raise StartupError("raw Ethernet frames are not permitted", _PRIVILEGE) from error


def open_taps(card: Card) -> socket.socket:
    """A socket that hears what DHCP and PXE servers send over this card, as whole frames, and sends frames itself.

    StartupError if it is forbidden. It hears nothing that leaves through the card.
    """
    try:
        # Protocol 0: nothing is received before the filter is in place.
        with _closing_on_error(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
            program = b"".join(struct.pack("=HBBI", *instruction) for instruction in _FROM_SERVERS)
            buffer = ctypes.create_string_buffer(program, len(program))
            filter_ = struct.pack("HL", len(_FROM_SERVERS), ctypes.addressof(buffer))
            sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
            sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
            sock.bind((card.name, _ETHERTYPE_IPV4))
            return sock
    except PermissionError as error:
        raise StartupError("raw Ethernet frames are not permitted", _PRIVILEGE) from error


def open_arp(card: Card) -> socket.socket:
    """A socket that sends and hears ARP on this card, without its Ethernet header. StartupError if it is forbidden."""
    try:
        with _closing_on_error(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
            sock.bind((card.name, arp.ETHERTYPE))
            return sock
    except PermissionError as error:
        raise StartupError("raw Ethernet frames are not permitted", _PRIVILEGE) from error


def open_icmp(card: Card) -> socket.socket:
    """A socket that sends and hears ICMP over this card. StartupError if it is forbidden."""
    try:
        with _closing_on_error(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, card.name.encode() + b"\0")
            return sock
    except PermissionError as error:
        raise StartupError("ICMP is not permitted", _PRIVILEGE) from error


def frame_address(card: Card, mac: bytes) -> tuple[str, int, int, int, bytes]:
    """Where `open_frames`' socket sends to reach this MAC address."""
    return (card.name, _ETHERTYPE_IPV4, 0, 0, mac)


def packet_info(card: Card) -> list[tuple[int, int, bytes]]:
    """Ancillary data that makes a datagram leave through the card, from our address on it."""
    info = struct.pack("=I4s4s", card.index, card.own.ip.packed, bytes(4))
    return [(socket.IPPROTO_IP, _IP_PKTINFO, info)]


@contextmanager
def _closing_on_error(family: int, kind: int, protocol: int) -> Iterator[socket.socket]:
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def holder_of_udp_port(port: int) -> str:
    """Which program holds this UDP port, as far as /proc lets us see."""
    try:
        rows = [line.split() for line in Path("/proc/net/udp").read_text("ascii").splitlines()[1:]]
        inodes = {f"socket:[{row[9]}]" for row in rows if int(row[1].rpartition(":")[2], 16) == port}
        for process in Path("/proc").glob("[0-9]*"):
            try:
                held = {str(fd.readlink()) for fd in (process / "fd").iterdir()}
            except OSError:
                continue  # it ended, or is another user's
            if held & inodes:
                name = (process / "comm").read_text(errors="replace").strip()
                return f"{name} (process {process.name})"
    except (OSError, ValueError, IndexError):
        pass
    return "another program"
