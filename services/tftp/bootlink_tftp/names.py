"""File names from the wire: what a request's name means. Pure.

A name comes from firmware that nobody can update, over a LAN that anybody can send on. So `parts` first turns it
into plain path segments, forgiving what firmware does and refusing what only an attacker does; `read` then says which
of the few things it names:

    boot/<boot id>/<loader>             a loader, fetched in this boot
    <loader>                            a loader; our DHCP was not asked
    boot/<boot id>/<token>.ipxe         the script of the client with this MAC address
    boot/<boot id>/<token>.<cause>.ipxe the same, asked for by our own script after it failed for <cause>
    ...<token>.<cause>.<entry>.ipxe     and after <entry> was chosen at the boot menu
    <token>.ipxe                        the script; our DHCP was not asked, so a boot begins here
    [boot/<boot id>/]autoexec.ipxe      what newer iPXE asks for beside its loader; leads to the client's script

Segments never contain a separator, a NUL, a drive letter, `.` or `..`, so whoever joins them stays below its root.
Percent signs are bytes like others: TFTP has no URL encoding, and to decode one would let `%2e%2e` become `..`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from bootlink_events import BootId, normalise_mac

NAME_MAX: Final = 255  # octets of a segment: the limit of Linux's file systems
DEPTH_MAX: Final = 8  # segments: loader folders are shallow

_TOKEN_FILE: Final = re.compile(r"([0-9a-f]{2}(?:-[0-9a-f]{2}){5})(?:\.([a-z]{1,16})(?:\.([a-z0-9.-]{1,63}))?)?\.ipxe")
_AUTOEXEC: Final = "autoexec.ipxe"
_LOOKED_FOR: Final = re.compile(r"revocations(?:_sku|_sbat)?\.efi|shim_certificate_\d+\.efi")
"""What Secure Boot's shim looks for beside itself, and goes on without (measured, shim 16.1)."""


class NameRefused(ValueError):
    """A name that is never served, whatever files there are."""


@dataclass(frozen=True, slots=True)
class LoaderName:
    """A file of the loader folders."""

    path: tuple[str, ...]
    boot_id: BootId | None = None

    @property
    def text(self) -> str:
        return "/".join(self.path)

    @property
    def optional(self) -> bool:
        """Whoever asks for it boots without it, too."""
        return _LOOKED_FOR.fullmatch(self.path[-1]) is not None


@dataclass(frozen=True, slots=True)
class ScriptName:
    """The iPXE script of one client. `failure`: what our former script of this boot failed at, and `entry` what had
    been chosen at its menu."""

    mac: str
    boot_id: BootId | None = None
    failure: str | None = None
    entry: str = ""


@dataclass(frozen=True, slots=True)
class AutoexecName:
    """The script that leads a PC to its own."""

    boot_id: BootId | None = None


Name = LoaderName | ScriptName | AutoexecName


def parts(raw: bytes) -> tuple[str, ...]:
    """The name's path segments, below a root that the name cannot leave. Raises NameRefused."""
    # Some firmware sends the name out of a buffer and with it what lies behind: 0xFF from DHCP's end option
    # (FIELD section 4), or spaces and control characters (novaboot #9). The codec has cut at the first NUL.
    name = raw.rstrip(b"\xff\r\n\t ")
    if not name.isascii() or any(byte < 0x20 or byte == 0x7F for byte in name):
        raise NameRefused("the name has characters that no boot file has")
    # Windows' boot manager asks for `\Boot\BCD`.
    text = name.decode("ascii").replace("\\", "/")
    if text.startswith("//"):
        raise NameRefused("a network path")
    # A leading slash means the root that is served, as for tftpd-hpa with --secure: curl and GRUB send one.
    segments = [segment for segment in text.split("/") if segment]
    if not segments:
        raise NameRefused("no name")
    if len(segments) > DEPTH_MAX or any(len(segment) > NAME_MAX for segment in segments):
        raise NameRefused("the name is too long")
    for segment in segments:
        if set(segment) == {"."}:
            raise NameRefused("the name leads out of the folder")
        if ":" in segment:
            raise NameRefused("a drive letter or a stream")  # and no loader has a colon in its name
    return tuple(segments)


def read(raw: bytes) -> Name:
    """What the name asks for. Raises NameRefused."""
    path = parts(raw)
    boot_id: BootId | None = None
    if len(path) > 2 and path[0].lower() == "boot":
        try:
            boot_id = BootId.parse(path[1])
        except ValueError:
            return LoaderName(path)  # a folder named boot that the administrator made
        path = path[2:]
    if len(path) == 1:
        file = path[0].lower()
        if file == _AUTOEXEC:
            return AutoexecName(boot_id)
        if match := _TOKEN_FILE.fullmatch(file):
            try:
                return ScriptName(normalise_mac(match[1]), boot_id, match[2], match[3] or "")
            except ValueError as error:
                raise NameRefused("a MAC address that no PC has") from error
    return LoaderName(path, boot_id)
