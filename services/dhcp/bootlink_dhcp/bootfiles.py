"""Which loader for which firmware, and the DHCP options that carry it. Tables and pure functions."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from bootlink_events import BootId, mac_token
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpPacket

# iPXE writes its bare name, where RFC 3004 section 4 asks for a length before it. Both count.
IPXE_USER_CLASSES: Final = (b"iPXE", b"\x04iPXE")
PXE_CLASS: Final = "PXEClient"  # PXE 2.1 section 2.2.1
HTTP_CLASS: Final = "HTTPClient"  # UEFI 2.10 section 24.7.3.2
VENDOR_CLASS_KEPT: Final = 255  # characters: one option's worth. RFC 3396 lets a packet carry one of nine kilobytes


@dataclass(frozen=True, slots=True)
class Architecture:
    """One processor architecture type of option 93 (IANA registry; RFC 4578 section 2.1 had 7 and 9 swapped)."""

    name: str
    loaders: tuple[str, ...] = ()  # the first that is at hand is sent
    remedy: str = "Bootlink has no loader for this firmware; choose BIOS or UEFI PXE in the PC's setup"


_PUT = "put {} into the loaders' folder"
_HTTP = "UEFI HTTP boot is not served yet; choose PXE over IPv4 in the PC's setup"

ARCHITECTURES: Final[Mapping[int, Architecture]] = {
    0: Architecture("bios", ("undionly.kpxe",), "install Debian's package ipxe, or " + _PUT.format("undionly.kpxe")),
    6: Architecture("uefi-ia32", ("ipxe-ia32.efi",), _PUT.format("ipxe-ia32.efi")),
    7: Architecture(
        "uefi-x64", ("snponly.efi", "ipxe.efi"), "install Debian's package ipxe, or " + _PUT.format("snponly.efi")
    ),
    9: Architecture(
        "uefi-x64", ("snponly.efi", "ipxe.efi"), "install Debian's package ipxe, or " + _PUT.format("snponly.efi")
    ),
    10: Architecture("uefi-arm32"),
    11: Architecture("uefi-arm64", ("snponly-arm64.efi", "ipxe-arm64.efi"), _PUT.format("snponly-arm64.efi")),
    15: Architecture("http-ia32", (), _HTTP),
    16: Architecture("http-x64", (), _HTTP),
    18: Architecture("http-arm32", (), _HTTP),
    19: Architecture("http-arm64", (), _HTTP),
    20: Architecture("http-bios", (), _HTTP),
}


def architecture(code: int) -> Architecture:
    """The row of this code; a nameless one without loaders if nobody has heard of it."""
    return ARCHITECTURES.get(code) or Architecture(f"arch-{code}")


@dataclass(frozen=True, slots=True)
class BootClient:
    """What a packet says of the firmware that sent it."""

    arch: Architecture
    vendor_class: str
    ipxe: bool
    http: bool

    @property
    def firmware(self) -> str:
        """As `BootStarted.firmware` names it."""
        return "iPXE" if self.ipxe else "HTTP" if self.http else "PXE"


def boot_client(packet: DhcpPacket) -> BootClient | None:
    """Who wants to boot; None for a packet of an operating system, which only wants an address."""
    vendor_class = packet.get(opt.VENDOR_CLASS) or ""
    ipxe = (packet.get(opt.USER_CLASS) or b"").startswith(IPXE_USER_CLASSES)
    http = vendor_class.startswith(HTTP_CLASS)
    if not (ipxe or http or vendor_class.startswith(PXE_CLASS)):
        return None
    # Option 93 is a list; the first is what the firmware is. Without it: BIOS, as all had been before it came.
    codes = packet.get(opt.CLIENT_ARCHITECTURE) or (0,)
    return BootClient(architecture(codes[0]), vendor_class[:VENDOR_CLASS_KEPT], ipxe, http)


@dataclass(frozen=True, slots=True)
class BootFiles:
    """Where loaders and scripts are, and which loaders there are."""

    server: IPv4Address
    port: int
    loaders: Collection[str]

    TFTP_PORT = 69  # the only port that PXE firmware asks at

    def loader(self, client: BootClient) -> str | None:
        """The file name of this client's loader; None if there is none for its architecture."""
        return next((name for name in client.arch.loaders if name in self.loaders), None)

    def loader_file(self, boot_id: BootId, loader: str, *, ipxe: bool) -> str:
        """The boot file that names the loader."""
        path = f"boot/{boot_id}/{loader}"
        # Firmware is told a path and the server apart and knows no other port. iPXE understands a URL with one.
        return f"{self._root()}/{path}" if ipxe and self.port != self.TFTP_PORT else path

    def script_file(self, boot_id: BootId, mac: str) -> str:
        """The URL of the client's script."""
        return f"{self._root()}/boot/{boot_id}/{mac_token(mac)}.ipxe"

    def _root(self) -> str:
        port = "" if self.port == self.TFTP_PORT else f":{self.port}"
        return f"tftp://{self.server}{port}"


def boot_options(request: DhcpPacket, client: BootClient) -> list[tuple[int, bytes]]:
    """What a PXE or iPXE client must find in our answer to take it, whether or not there is a boot file."""
    pairs: list[tuple[int, bytes]] = []
    if client.vendor_class or client.ipxe:
        # The firmware takes only an answer with its own class in it, and iPXE prefers one.
        pairs.append(opt.VENDOR_CLASS.encode(HTTP_CLASS if client.http else PXE_CLASS))
    if not client.http:
        control = bytes((opt.PXE_USE_OFFERED_FILE,))
        pairs.append(opt.VENDOR_SPECIFIC.encode(opt.encapsulate([(opt.PXE_DISCOVERY_CONTROL, control)])))
    uuid = request.get(opt.CLIENT_UUID)
    if uuid is not None:
        pairs.append(opt.CLIENT_UUID.encode(uuid))
    if client.ipxe:
        # Without this iPXE waits 3 s for a proxyDHCP server to speak, at every pass.
        pairs.append(opt.IPXE.encode(opt.encapsulate([(opt.IPXE_NO_PXEDHCP, b"\x01")])))
    return pairs
