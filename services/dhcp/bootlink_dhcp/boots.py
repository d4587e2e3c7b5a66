"""Boots: what a DHCP packet means to the boot of its PC. Which boot, which file, and what is to be told of it.

It lies between the machines that answer packets and three things that they need not know: the tracker, which says
which boot a packet belongs to, the boot files, which say what this firmware is given, and the events of a boot. It does
no I/O; time is passed in, in seconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Protocol

from bootlink_dhcp.bootfiles import BootClient, BootFiles, boot_options
from bootlink_dhcp.tracker import Ask, BootPass, BootTracker
from bootlink_events import BootAddressed, BootFailed, BootStarted, ClientSeen, EventData
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket


class BootBook(Protocol):
    """What is asked about a client: its name, if the registry knows it."""

    def name(self, mac: str) -> str | None: ...


@dataclass(frozen=True, slots=True)
class BootAsk:
    """A packet of a PC that wants to boot."""

    packet: DhcpPacket
    mac: str  # normalised
    client: BootClient
    now: float


@dataclass(frozen=True, slots=True)
class BootAnswer:
    """What an answer must carry for the PC to boot, and what is to be told."""

    boot: BootPass
    file: str  # empty where there is no loader for this firmware
    server: IPv4Address  # NO_ADDRESS where there is no file
    options: tuple[tuple[int, bytes], ...]
    events: tuple[EventData, ...] = ()


class Boots:
    """The boots of all PCs."""

    def __init__(self, tracker: BootTracker, files: BootFiles, book: BootBook, *, chain_rom_ipxe: bool = True) -> None:
        self._tracker = tracker
        self._files = files
        self._book = book
        self._chain_rom_ipxe = chain_rom_ipxe

    def begun(self, mac: str) -> bool:
        """Whether this PC has booted from us, as far as we remember."""
        return self._tracker.current(mac) is not None

    def discovered(self, ask: BootAsk, address: IPv4Address | None) -> BootAnswer:
        """A DISCOVER, answered with an offer of `address`; None where another server gives out addresses, or none."""
        boot = self._tracker.discovered(self._tracked(ask), ask.now)
        answer = self._answer(ask, boot)
        events = self._started(ask, boot, address)
        if boot.minted and not answer.file:
            events.append(self.failed(ask, boot, *_no_loader(ask.client)))
        return self._telling(answer, events)

    def acknowledged(self, ask: BootAsk, address: IPv4Address) -> BootAnswer:
        """A REQUEST of `address` that is granted."""
        boot = self._tracker.acknowledged(self._tracked(ask), ask.now)
        answer = self._answer(ask, boot)
        events = self._started(ask, boot, address)
        if boot.first_ack:
            events.append(self._addressed(ask, boot, address, answer.file))
        return self._telling(answer, events)

    def failed(self, ask: BootAsk, boot: BootPass, cause: str, remedy: str) -> BootFailed:
        """The event that says why this boot cannot go on."""
        return BootFailed(
            mac=ask.mac,
            client=self._book.name(ask.mac),
            boot_id=boot.boot_id,
            started=_instant(boot.began),
            ended=_instant(ask.now),
            stage="dhcp",
            cause=cause,
            remedy=remedy,
        )

    def _tracked(self, ask: BootAsk) -> Ask:
        chain = self._chain_rom_ipxe and self._files.loader(ask.client) is not None
        return Ask(ask.mac, ask.packet.xid, ask.client.ipxe, chain)

    def _answer(self, ask: BootAsk, boot: BootPass) -> BootAnswer:
        file = self._file(ask, boot)
        pairs = boot_options(ask.packet, ask.client)
        if file:
            # Some firmware reads only siaddr and file, some only 66 and 67: both, and equal (FIELD section 4).
            pairs += [opt.TFTP_SERVER_NAME.encode(str(self._files.server)), opt.BOOT_FILE_NAME.encode(file)]
        return BootAnswer(boot, file, self._files.server if file else NO_ADDRESS, tuple(pairs))

    def _file(self, ask: BootAsk, boot: BootPass) -> str:
        if boot.gets_script:
            return self._files.script_file(boot.boot_id, ask.mac)
        loader = self._files.loader(ask.client)
        return self._files.loader_file(boot.boot_id, loader, ipxe=ask.client.ipxe) if loader else ""

    @staticmethod
    def _telling(answer: BootAnswer, events: list[EventData]) -> BootAnswer:
        return BootAnswer(answer.boot, answer.file, answer.server, answer.options, tuple(events))

    def _started(self, ask: BootAsk, boot: BootPass, address: IPv4Address | None) -> list[EventData]:
        if not boot.minted:
            return []
        name, at = self._book.name(ask.mac), _instant(ask.now)
        started = BootStarted(
            mac=ask.mac,
            client=name,
            boot_id=boot.boot_id,
            started=at,
            ended=at,
            arch=ask.client.arch.name,
            firmware=ask.client.firmware,
            vendor_class=ask.client.vendor_class,
        )
        if name is not None:
            return [started]
        seen = ClientSeen(
            mac=ask.mac,
            boot_id=boot.boot_id,
            address=address,
            arch=ask.client.arch.name,
            vendor_class=ask.client.vendor_class,
        )
        return [started, seen]

    def _addressed(self, ask: BootAsk, boot: BootPass, address: IPv4Address, file: str) -> BootAddressed:
        return BootAddressed(
            mac=ask.mac,
            client=self._book.name(ask.mac),
            boot_id=boot.boot_id,
            started=_instant(boot.began),
            ended=_instant(ask.now),
            pass_=boot.pass_,
            address=address,
            boot_file=file,
        )


def _no_loader(client: BootClient) -> tuple[str, str]:
    return f"there is no boot loader for {client.arch.name} firmware ({client.firmware})", client.arch.remedy


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
