"""Which loader for which firmware, and the DHCP options that carry it. Tables and pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final, Protocol

from bootlink_dhcp.loader_image import Image
from bootlink_events import BootId, LoaderRule, mac_token
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpPacket

# iPXE writes its bare name, where RFC 3004 section 4 asks for a length before it. Both count.
IPXE_USER_CLASSES: Final = (b"iPXE", b"\x04iPXE")
PXE_CLASS: Final = "PXEClient"  # PXE 2.1 section 2.2.1
HTTP_CLASS: Final = "HTTPClient"  # UEFI 2.10 section 24.7.3.2
LOADER_NAME: Final = re.compile(r"(?=.{1,48}\Z)[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")
"""A file in the loaders' folder, or in a folder there. As a URL, with its boot id, it must fit DHCP's `file` field."""
PROBE_PREFIX: Final = b"\x02\x62\x6c"
"""How the MAC address begins under which we look for other servers: locally administered, and no PC's."""
NO_HTTP: Final = "set BOOTLINK_TFTP_HTTP_PORT=80 and start Bootlink anew, or choose PXE over IPv4 in the PC's setup"
"""What to do where a PC is set to HTTP boot, and no port is served (ADR 22 says why none is by itself)."""
ECHOED: Final[Mapping[opt.Option[Any], int]] = {
    opt.CLIENT_ARCHITECTURE: 16,
    opt.CLIENT_INTERFACE: 3,
    opt.CLIENT_UUID: opt.OPTION_SIZE,
}
"""What servers give back, and how many octets of it at most: eight architectures, a type and a version, 17 of a UUID
(RFC 4578 sections 2.1 to 2.3). What is longer is no firmware's, and may fill a packet."""
VENDOR_CLASS_KEPT: Final = 255  # characters: one option's worth. RFC 3396 lets a packet carry one of nine kilobytes


@dataclass(frozen=True, slots=True)
class Architecture:
    """One processor architecture type of option 93 (IANA registry; RFC 4578 section 2.1 had 7 and 9 swapped)."""

    name: str
    image: Image | None = None  # what its loader must be; None: nothing that we know starts this firmware
    loaders: tuple[str, ...] = ()  # in order; what is at hand and has not failed is sent
    remedy: str = "Bootlink has no loader for this firmware; choose BIOS or UEFI PXE in the PC's setup"


_PUT = "put {} into the loaders' folder"
_DEBIAN = "install Debian's package ipxe, or " + _PUT

_BIOS = ("undionly.kpxe", "ipxe.pxe")
_IA32 = ("snponly-ia32.efi", "ipxe-ia32.efi")
# A shim signed by Microsoft, put there by the user, starts the signed iPXE beside it where Secure Boot is on, and where
# it is off too. A request does not say which (FIELD section 4), so the shim goes first.
_X64 = ("snponly-shimx64.efi", "ipxe-shimx64.efi", "snponly.efi", "ipxe.efi")
_ARM32 = ("snponly-arm32.efi", "ipxe-arm32.efi")
_ARM64 = ("snponly-arm64.efi", "ipxe-arm64.efi")

ARCHITECTURES: Final[Mapping[int, Architecture]] = {
    0: Architecture("bios", Image.NBP, _BIOS, _DEBIAN.format("undionly.kpxe")),
    6: Architecture("uefi-ia32", Image.IA32, _IA32, _PUT.format("ipxe-ia32.efi")),
    7: Architecture("uefi-x64", Image.X64, _X64, _DEBIAN.format("snponly.efi")),
    9: Architecture("uefi-x64", Image.X64, _X64, _DEBIAN.format("snponly.efi")),
    10: Architecture("uefi-arm32", Image.ARM32, _ARM32, _PUT.format("snponly-arm32.efi")),
    11: Architecture("uefi-arm64", Image.ARM64, _ARM64, _PUT.format("snponly-arm64.efi")),
    15: Architecture("http-ia32", Image.IA32, _IA32, _PUT.format("ipxe-ia32.efi")),
    16: Architecture("http-x64", Image.X64, _X64, _DEBIAN.format("snponly.efi")),
    18: Architecture("http-arm32", Image.ARM32, _ARM32, _PUT.format("snponly-arm32.efi")),
    19: Architecture("http-arm64", Image.ARM64, _ARM64, _PUT.format("snponly-arm64.efi")),
    20: Architecture("http-bios", remedy="HTTP boot of a BIOS is not served; choose PXE over IPv4 in the PC's setup"),
    27: Architecture("uefi-riscv64", Image.RISCV64, ("snponly-riscv64.efi",), _PUT.format("snponly-riscv64.efi")),
    28: Architecture("http-riscv64", Image.RISCV64, ("snponly-riscv64.efi",), _PUT.format("snponly-riscv64.efi")),
    39: Architecture("uefi-loong64", Image.LOONGARCH64, ("snponly-loong64.efi",), _PUT.format("snponly-loong64.efi")),
    40: Architecture("http-loong64", Image.LOONGARCH64, ("snponly-loong64.efi",), _PUT.format("snponly-loong64.efi")),
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


BOOTP: Final = BootClient(architecture(0), "", ipxe=False, http=False)
"""What is known of a BOOTP client: it is of the time when there was but BIOS."""


def boot_client(packet: DhcpPacket) -> BootClient | None:
    """Who wants to boot; None for a packet of an operating system, which only wants an address."""
    if packet.chaddr.startswith(PROBE_PREFIX):
        return None  # another server of ours, which only looks for servers
    vendor_class = packet.get(opt.VENDOR_CLASS) or ""
    ipxe = (packet.get(opt.USER_CLASS) or b"").startswith(IPXE_USER_CLASSES)
    http = vendor_class.startswith(HTTP_CLASS)
    if not (ipxe or http or vendor_class.startswith(PXE_CLASS)):
        return None
    # Option 93 is a list; the first is what the firmware is. Without it: BIOS, as all had been before it came.
    codes = packet.get(opt.CLIENT_ARCHITECTURE) or (0,)
    return BootClient(architecture(codes[0]), vendor_class[:VENDOR_CLASS_KEPT], ipxe, http)


class Loaders(Protocol):
    """What is asked about the files of the loaders' folders."""

    def fits(self, name: str, image: Image) -> bool: ...


@dataclass(frozen=True, slots=True)
class BootFiles:
    """Where loaders and scripts are, and which loader is for whom.

    Rules come before the table of architectures, and of the rules those that are given first; all that fit a client
    make up its candidates, so that a rule's own loader may fail and the table's is still there.
    """

    server: IPv4Address
    port: int
    loaders: Loaders
    http_port: int = 0  # 0: no HTTP
    rules: tuple[LoaderRule, ...] = ()
    http_scripts: bool = False  # iPXE is sent to HTTP for its script

    TFTP_PORT = 69  # the only port that PXE firmware asks at
    HTTP_PORT = 80  # what a URL without a port means

    def candidates(self, client: BootClient, mac: str, rules: Sequence[LoaderRule] = ()) -> tuple[str, ...]:
        """The loaders at hand for this client, best first; `rules` are those of its group."""
        image = client.arch.image
        if image is None or (client.http and not self.http_port):
            return ()
        names = [name for rule in (*rules, *self.rules) if applies(rule, client, mac) for name in rule.loaders]
        return tuple(name for name in dict.fromkeys((*names, *client.arch.loaders)) if self.loaders.fits(name, image))

    def remedy(self, client: BootClient) -> str:
        """What to do where there are no candidates."""
        if client.http and not self.http_port:
            return NO_HTTP
        return client.arch.remedy

    def loader_file(self, boot_id: BootId, loader: str, client: BootClient) -> str:
        """The boot file that names the loader."""
        path = f"boot/{boot_id}/{loader}"
        if client.http:
            # UEFI's HTTP boot takes nothing but a whole URL (UEFI 2.10 section 24.7.3.1).
            return f"{self._http_root()}/{path}"
        # Firmware is told a path and the server apart and knows no other port. iPXE understands a URL with one.
        return f"{self._root()}/{path}" if client.ipxe and self.port != self.TFTP_PORT else path

    def bootp_file(self, mac: str, asked: str, rules: Sequence[LoaderRule] = ()) -> str:
        """The boot file for a BOOTP client: the loader that it asks for by name (RFC 951 section 7.3), or a BIOS's.
        Without a boot id, as nobody knows yet whether this is a boot; empty where there is none that it can ask for."""
        if self.port != self.TFTP_PORT:
            return ""
        if asked and self.loaders.fits(asked, Image.NBP):
            return asked
        return next(iter(self.candidates(BOOTP, mac, rules)), "")

    def script_file(self, boot_id: BootId, mac: str) -> str:
        """The URL of the client's script."""
        root = self._http_root() if self.http_scripts and self.http_port else self._root()
        return f"{root}/boot/{boot_id}/{mac_token(mac)}.ipxe"

    def _root(self) -> str:
        port = "" if self.port == self.TFTP_PORT else f":{self.port}"
        return f"tftp://{self.server}{port}"

    def _http_root(self) -> str:
        port = "" if self.http_port == self.HTTP_PORT else f":{self.http_port}"
        return f"http://{self.server}{port}"


def applies(rule: LoaderRule, client: BootClient, mac: str) -> bool:
    """Whether this rule is for this client. `model` is how MAC addresses of one maker's model begin."""
    return (
        rule.arch in ("", client.arch.name)
        and client.vendor_class.startswith(rule.vendor_class)
        and mac_token(mac).startswith(rule.model.lower().replace(":", "-"))
    )


def boot_file_options(server: IPv4Address, file: str) -> list[tuple[int, bytes]]:
    """Options 66 and 67. Some firmware reads but them, some but siaddr and file: both, and equal (FIELD section 4)."""
    return [opt.TFTP_SERVER_NAME.encode(str(server)), opt.BOOT_FILE_NAME.encode(file)]


def boot_options(request: DhcpPacket, client: BootClient) -> list[tuple[int, bytes]]:
    """What a PXE or iPXE client must find in our answer to take it, whether or not there is a boot file."""
    pairs: list[tuple[int, bytes]] = []
    if client.vendor_class or client.ipxe:
        # The firmware takes only an answer with its own class in it, and iPXE prefers one.
        pairs.append(opt.VENDOR_CLASS.encode(HTTP_CLASS if client.http else PXE_CLASS))
    if not client.http:
        control = bytes((opt.PXE_USE_OFFERED_FILE,))
        pairs.append(opt.VENDOR_SPECIFIC.encode(opt.encapsulate([(opt.PXE_DISCOVERY_CONTROL, control)])))
    for option, most in ECHOED.items():
        value = request.options.get(option.code)
        if value is not None and len(value) <= most:
            pairs.append((option.code, value))
    if client.ipxe:
        # Without this iPXE waits 3 s for a proxyDHCP server to speak, at every pass.
        pairs.append(opt.IPXE.encode(opt.encapsulate([(opt.IPXE_NO_PXEDHCP, b"\x01")])))
    return pairs
