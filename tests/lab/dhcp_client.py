"""A PC as DHCP sees it: the packets that firmware, iPXE and an operating system send, made from real captures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final, Literal

from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket, MessageType
from lab.golden import dhcp_capture

FIRMWARE_PATIENCE: Final = 4.0  # seconds until PXE firmware asks again for the first time (PXE 2.1 section 2.2.4)
FIRMWARE_TRIES: Final = 4

Firmware = Literal["ovmf", "ipxe", "os", "http"]
CAPTURES = {"ovmf": "ovmf-x64-discover.hex", "ipxe": "ipxe-rom-discover.hex", "http": "ovmf-http-discover.hex"}


def discover(firmware: Firmware, mac: str, xid: int) -> DhcpPacket:
    """The DISCOVER of OVMF, of iPXE (ROM or our loader: they look alike), of UEFI HTTP boot, or of a plain system."""
    chaddr = bytes.fromhex(mac.replace(":", ""))
    if firmware == "os":
        packet = DhcpPacket(
            op=dhcp.BOOTREQUEST,
            xid=xid,
            chaddr=chaddr,
            options=dhcp.options(opt.MESSAGE_TYPE.encode(MessageType.DISCOVER), opt.HOST_NAME.encode("pc")),
        )
    else:
        packet = replace(dhcp.decode(dhcp_capture(CAPTURES[firmware])), xid=xid, chaddr=chaddr)
        if opt.CLIENT_ID.code in packet.options:
            packet = with_options(packet, opt.CLIENT_ID.encode(b"\1" + chaddr))
    return packet


def request(offer: DhcpPacket, of: DhcpPacket) -> DhcpPacket:
    """The REQUEST that takes up an offer (SELECTING): the DISCOVER `of` with two options more."""
    server = opt.SERVER_ID.decode(offer.options[54])
    return with_options(
        of,
        opt.MESSAGE_TYPE.encode(MessageType.REQUEST),
        opt.SERVER_ID.encode(server),
        opt.REQUESTED_ADDRESS.encode(offer.yiaddr),
    )


def message(
    kind: MessageType,
    mac: str,
    *,
    ciaddr: IPv4Address = NO_ADDRESS,
    wanted: IPv4Address | None = None,
    server: IPv4Address | None = None,
) -> DhcpPacket:
    """A bare message of an operating system."""
    return DhcpPacket(
        op=dhcp.BOOTREQUEST,
        xid=0x77,
        chaddr=bytes.fromhex(mac.replace(":", "")),
        ciaddr=ciaddr,
        options=dhcp.options(
            opt.MESSAGE_TYPE.encode(kind),
            opt.REQUESTED_ADDRESS.encode(wanted) if wanted else None,
            opt.SERVER_ID.encode(server) if server else None,
        ),
    )


def with_options(packet: DhcpPacket, *pairs: tuple[int, bytes]) -> DhcpPacket:
    """The packet with these options added or changed."""
    merged: Mapping[int, bytes] = {**packet.options, **dict(pairs)}
    return replace(packet, options=merged)
