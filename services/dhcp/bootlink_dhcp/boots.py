"""Boots: what a DHCP packet means to the boot of its PC. Which boot, which file, and what is to be told of it.

It lies between the machines that answer packets and what they need not know: the tracker, which says which boot a
packet belongs to, the boot files, which say what may be given to this firmware, the firmware's memory, which says
what of that came up on this PC, and the events of a boot. It does no I/O; time is passed in, in seconds since the
epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import NamedTuple, Protocol

from bootlink_dhcp.bootfiles import BootClient, BootFiles, boot_file_options, boot_options
from bootlink_dhcp.firmware import FirmwareMemory, LoaderChange
from bootlink_dhcp.tracker import Ask, BootPass, BootTracker
from bootlink_events import (
    BootAddressed,
    BootFailed,
    BootLoaderChanged,
    BootStarted,
    ClientSeen,
    EventData,
    LoaderRule,
)
from bootlink_wire.dhcp import NO_ADDRESS, DhcpPacket


class BootBook(Protocol):
    """What is asked about a client: its name, if the registry knows it, and the loader rules of its group."""

    def name(self, mac: str) -> str | None: ...
    def loader_rules(self, mac: str) -> tuple[LoaderRule, ...]: ...


@dataclass(frozen=True, slots=True)
class BootAsk:
    """A packet of a PC that wants to boot."""

    packet: DhcpPacket
    mac: str  # normalised
    client: BootClient
    now: float
    proxied: bool = False  # another server gives out the addresses


class BootAnswer(NamedTuple):
    """What an answer must carry for the PC to boot, and what is to be told."""

    boot: BootPass
    file: str  # empty where there is no loader for this firmware
    server: IPv4Address  # NO_ADDRESS where there is no file
    options: tuple[tuple[int, bytes], ...]
    events: tuple[EventData, ...] = ()

    @property
    def begun(self) -> BootPass | None:
        """The boot, where this answers the first DISCOVER of its firmware or of its iPXE."""
        return self.boot if self.boot.minted or self.boot.reached_script else None


class Boots:
    """The boots of all PCs."""

    def __init__(
        self,
        tracker: BootTracker,
        files: BootFiles,
        firmware: FirmwareMemory,
        book: BootBook,
        *,
        chain_rom_ipxe: bool = True,
    ) -> None:
        self._tracker = tracker
        self._files = files
        self.firmware = firmware
        self._book = book
        self._chain_rom_ipxe = chain_rom_ipxe
        self.http_in_vain: tuple[str, float] | None = None
        """The PC that last wanted to boot over HTTP, where there is none, and when."""

    def begun(self, mac: str) -> bool:
        """Whether this PC has booted from us, as far as we remember."""
        return self._tracker.current(mac) is not None

    @property
    def file_server(self) -> IPv4Address:
        """Where boot files come from."""
        return self._files.server

    def bootp_file(self, mac: str, asked: str) -> str:
        """What a BOOTP client that asks for this file, or for none, is to load; empty: nothing."""
        return self._files.bootp_file(mac, asked, self._book.loader_rules(mac))

    def discovered(self, ask: BootAsk, address: IPv4Address | None) -> BootAnswer:
        """A DISCOVER, answered with an offer of `address`; None where another server gives out addresses, or none."""
        candidates = self._candidates(ask)
        boot = self._tracker.discovered(self._tracked(ask, candidates), ask.now)
        events = self._started(ask, boot, address)
        events += self._learned(ask, boot, candidates)  # before the answer, which depends on it
        answer = self._answer(ask, boot, candidates)
        if boot.minted and not answer.file:
            events.append(self.failed(ask, boot, *self._no_loader(ask.client)))
            if ask.client.http and not self._files.http_port:
                self.http_in_vain = ask.mac, ask.now
        return answer._replace(events=tuple(events)) if events else answer

    def acknowledged(self, ask: BootAsk, address: IPv4Address) -> BootAnswer:
        """A REQUEST of `address` that is granted, by whoever gives out addresses here."""
        candidates = self._candidates(ask)
        boot = self._tracker.acknowledged(self._tracked(ask, candidates), ask.now)
        return self._acknowledged(ask, boot, candidates, address)

    def named(self, ask: BootAsk, address: IPv4Address) -> BootAnswer:
        """A question for the boot file alone, by a client that has its `address` from elsewhere."""
        candidates = self._candidates(ask)
        boot = self._tracker.named(self._tracked(ask, candidates), ask.now)
        return self._acknowledged(ask, boot, candidates, address)

    def _acknowledged(
        self, ask: BootAsk, boot: BootPass, candidates: tuple[str, ...], address: IPv4Address
    ) -> BootAnswer:
        events = self._started(ask, boot, address)
        events += self._learned(ask, boot, candidates)
        answer = self._answer(ask, boot, candidates)
        if boot.first_ack:
            events.append(self._addressed(ask, boot, address, answer.file))
        return answer._replace(events=tuple(events)) if events else answer

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

    def _candidates(self, ask: BootAsk) -> tuple[str, ...]:
        return self._files.candidates(ask.client, ask.mac, self._book.loader_rules(ask.mac))

    def _tracked(self, ask: BootAsk, candidates: tuple[str, ...]) -> Ask:
        chain = self._chain_rom_ipxe and bool(candidates)
        return Ask(ask.mac, ask.packet.xid, ask.client.ipxe, chain, offered_is_used=ask.proxied)

    def _learned(self, ask: BootAsk, boot: BootPass, candidates: tuple[str, ...]) -> list[EventData]:
        """Learn from how the boot before this one ended, or from how this one goes. What is to be told of that."""
        if boot.reached_script:
            self.firmware.came_up(ask.mac)
        change = self.firmware.boot_lost(ask.mac, candidates) if boot.former_lost else None
        return [self._loader_changed(ask, boot, change)] if change is not None else []

    def _answer(self, ask: BootAsk, boot: BootPass, candidates: tuple[str, ...]) -> BootAnswer:
        file = self._file(ask, boot, candidates)
        pairs = boot_options(ask.packet, ask.client)
        if file:
            pairs += boot_file_options(self._files.server, file)
        return BootAnswer(boot, file, self._files.server if file else NO_ADDRESS, tuple(pairs))

    def _file(self, ask: BootAsk, boot: BootPass, candidates: tuple[str, ...]) -> str:
        if boot.gets_script:
            return self._files.script_file(boot.boot_id, ask.mac)
        loader = self.firmware.choose(ask.mac, candidates)
        return self._files.loader_file(boot.boot_id, loader, ask.client) if loader else ""

    def _no_loader(self, client: BootClient) -> tuple[str, str]:
        cause = f"there is no boot loader for {client.arch.name} firmware ({client.firmware})"
        return cause, self._files.remedy(client)

    def _loader_changed(self, ask: BootAsk, boot: BootPass, change: LoaderChange) -> BootLoaderChanged:
        return BootLoaderChanged(
            mac=ask.mac,
            client=self._book.name(ask.mac),
            boot_id=boot.boot_id,
            former=change.former,
            loader=change.loader,
            boots=change.boots,
            at=_instant(ask.now),
        )

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


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
