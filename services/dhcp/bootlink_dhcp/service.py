"""The dhcp service: puts card, journal, machines and sockets together, and takes them down again."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from bootlink_dhcp import metrics
from bootlink_dhcp.advertiser import Advertiser
from bootlink_dhcp.asked_loaders import AskedLoaders, Unfulfilled
from bootlink_dhcp.binl import BINL_PORT, BinlEndpoint
from bootlink_dhcp.bootfiles import BootFiles
from bootlink_dhcp.boots import Boots
from bootlink_dhcp.decision import Machine
from bootlink_dhcp.firmware import FirmwareMemory
from bootlink_dhcp.foreign import ForeignServers
from bootlink_dhcp.interface import Card, find_card
from bootlink_dhcp.journal import Journal
from bootlink_dhcp.leases import LeaseTable, restore
from bootlink_dhcp.ledger import LeaseLedger
from bootlink_dhcp.loaders import LOOK_SECONDS, LoaderShelf
from bootlink_dhcp.machine import DhcpMachine
from bootlink_dhcp.prober import Prober
from bootlink_dhcp.probing import Probing
from bootlink_dhcp.proxy import ProxyMachine
from bootlink_dhcp.reports import REPLACE, http_report, lease_report, loader_report, reservation_report
from bootlink_dhcp.reservations import Reservations
from bootlink_dhcp.server import DhcpServer
from bootlink_dhcp.settings import DhcpSettings
from bootlink_dhcp.sharing import Sharing, server_name
from bootlink_dhcp.subnet import Subnet, dotted
from bootlink_dhcp.topology import Scope, Topology
from bootlink_dhcp.tracker import BootTracker
from bootlink_dhcp.waker import Waker
from bootlink_dhcp.watch import Watch
from bootlink_events import BootPlan, DhcpLoaderMissing, LoaderRule
from bootlink_events.commands import WakeClient
from bootlink_runtime import Chassis, Logger, PlanBook, Service, StartupError
from bootlink_wire.dhcp_values import check_code, encode_value

JOURNAL_NAME: Final = "leases.jsonl"
CONNECT_SECONDS: Final = 2.0  # at the start, until NATS counts as away
READ_SECONDS: Final = 5.0  # and then, until we have read which leases there are
CARD_SECONDS: Final = 2.0  # between looks at the card
COLLECT_AFTER: Final = 10_000  # new objects, some 1 MB; Python's own 700 are three packets' worth
_LEASE: Final = "lease"
_BOOT: Final = "boot"
_SERVER: Final = "server"
_IDENTITY: Final = "identity"
_FIRMWARE: Final = "firmware"


class PlannedClients:
    """What the machine asks about clients, from the boot plans."""

    def __init__(self, plans: PlanBook, reservations: Reservations, asked: AskedLoaders, log: Logger) -> None:
        self._plans, self._reservations, self._asked, self._log = plans, reservations, asked, log
        # What each packet asks for. A plan is put together from its parts when it is asked for, which takes longer.
        self._names: dict[str, str] = {}
        self._rules: dict[str, tuple[LoaderRule, ...]] = {}  # of clients that have some
        self._options: dict[str, tuple[tuple[int, bytes], ...]] = {}
        for plan in plans:
            self._changed(plan.mac, plan)
        plans.subscribe(self._changed)

    def name(self, mac: str) -> str | None:
        return self._names.get(mac)

    def loader_rules(self, mac: str) -> tuple[LoaderRule, ...]:
        return self._rules.get(mac, ())

    def reserved(self, mac: str) -> IPv4Address | None:
        return self._reservations.of(mac)

    def not_honoured(self) -> dict[str, str]:
        """The clients that do not get the address reserved for them, and why."""
        return {self.name(mac) or mac: wrong for mac, wrong in self._reservations.wrong.items()}

    def options(self, mac: str) -> tuple[tuple[int, bytes], ...]:
        return self._options.get(mac, ())

    def _changed(self, mac: str, plan: BootPlan | None) -> None:
        for held in (self._names, self._rules, self._options):
            held.pop(mac, None)
        if plan is not None:
            self._names[mac] = plan.client
            if plan.loaders:
                self._rules[mac] = plan.loaders
            if plan.options:
                self._options[mac] = self._encoded(plan)
        self._asked.changed(mac, plan)
        wrong = self._reservations.set(mac, plan.address if plan else None)
        if wrong and plan:
            self._log.warning("reservation not honoured", client=plan.client, mac=mac, reason=wrong)

    def _encoded(self, plan: BootPlan) -> tuple[tuple[int, bytes], ...]:
        pairs = []
        for option in plan.options:
            try:
                check_code(option.code)
                pairs.append((option.code, encode_value(option.type, option.value)))
            except ValueError as error:  # the registry refuses such: it is newer than this service, or older
                self._log.warning("option left out", client=plan.client, option=option.code, reason=str(error))
        return tuple(pairs)


async def run(chassis: Chassis, settings: DhcpSettings) -> None:
    """Serve until told to stop. StartupError if this machine or its settings do not allow it."""
    card = find_card(settings.interface, settings.server_address)
    subnet = settings.subnet(card.own)
    subnets = (subnet, *settings.relayed(subnet))
    journal = _open_journal(chassis.data / JOURNAL_NAME)
    shelf = LoaderShelf(settings.loader_folders, settings.loader_rules)
    await asyncio.to_thread(shelf.look)
    asked = AskedLoaders(shelf, lambda wrong: _tell_asked(chassis, wrong), settings.loader_rules)
    firmware = _firmware(chassis, settings, journal)
    servers = ForeignServers(card.own.ip, settings.known_servers, proxy=settings.mode == "proxy")
    watch = Watch(chassis, card, servers)
    server, advertiser, promises, waker, binl, prober = None, None, None, None, None, None
    probing = Probing()
    try:
        if settings.mode == "auto":
            servers.proxy = await watch.look()
        machine, leases, ledger = _machine(
            chassis, settings, subnets, journal, shelf, asked, firmware, probing, proxy=servers.proxy
        )
        server = DhcpServer(chassis, card, machine, journal, ledger, settings.port)
        server.overheard = watch.chosen
        advertiser = _advertiser(chassis, settings, card)
        waker = Waker(card, health=chassis.health, log=chassis.log)
        chassis.serve_commands({WakeClient: waker.wake})
        await _first_write(journal, chassis.data)
        if leases and settings.probe_addresses:
            server.prober = prober = Prober(
                card, leases, probing, emit=chassis.bus.emit, health=chassis.health, log=chassis.log
            )
            chassis.health.check("address probes", prober.report, required=False)
            chassis.spawn(prober.run(), name="address probes")
        if ledger is not None:
            chassis.spawn(ledger.run(), name="lease ledger")
            await ledger.first_look(CONNECT_SECONDS, READ_SECONDS)
        server.start()
        if isinstance(machine, ProxyMachine):
            binl = BinlEndpoint(card, machine, server.decided, health=chassis.health, log=chassis.log)
            chassis.listening("binl", str(card.own.ip), BINL_PORT)
        chassis.health.check("other servers", watch.report, required=False)
        if settings.probe_seconds:
            chassis.spawn(watch.keep_looking(settings.probe_seconds), name="watch for other servers")
        promises = chassis.spawn(server.keep_promises(), name="lease journal")
        chassis.spawn(_look_for_loaders(chassis, shelf, asked, firmware), name="loaders")
        metrics.measure(chassis, leases, server.waits)
        chassis.health.check("loaders", lambda: _loaders(shelf, asked, settings), required=False)
        chassis.log.info(
            "serving",
            mode="proxy" if servers.proxy else "server",
            card=card.name,
            subnets=[str(one.network) for one in subnets],
            pools=[str(table.subnet.pool) for table in leases],
            loaders=list(shelf),
        )
        if not shelf:
            chassis.log.error("no boot loader found", remedy=_loaders(shelf, asked, settings)[1])
        _tell_unfit(chassis, shelf)
        if settings.tftp_port != BootFiles.TFTP_PORT:
            chassis.log.warning(
                "only iPXE ROMs will find their loader: other firmware asks port 69 alone", tftp_port=settings.tftp_port
            )
        chassis.listening("dhcp", str(card.own.ip), server.port)
        _settle()
        chassis.ready()
        await _watch_card(chassis, server)
    finally:
        for opened in (advertiser, waker, binl, watch, prober):
            if opened is not None:
                opened.close()
        if server is not None:
            if promises is not None:
                server.stop()
                await asyncio.gather(promises, return_exceptions=True)
            server.close()


def _settle() -> None:
    """What is held now stays, and what a packet leaves behind has no cycles: Python's collector would take a twentieth
    of the time that a room's start takes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def _open_journal(path: Path) -> Journal:
    try:
        return Journal(path)
    except OSError as error:
        raise StartupError(
            f"the lease file {path} cannot be read ({error.strerror})", "repair its permissions, or move it away"
        ) from error


async def _first_write(journal: Journal, folder: Path) -> None:
    """The journal anew and tidy; and a full or read-only disk is found now, not at the first client."""
    try:
        await asyncio.to_thread(journal.write, journal.take())
    except OSError as error:
        raise StartupError(
            f"leases cannot be written to {folder} ({error.strerror})", "make room there, or set BOOTLINK_DATA"
        ) from error


def _machine(
    chassis: Chassis,
    settings: DhcpSettings,
    subnets: tuple[Subnet, ...],
    journal: Journal,
    shelf: LoaderShelf,
    asked: AskedLoaders,
    firmware: FirmwareMemory,
    probing: Probing,
    *,
    proxy: bool,
) -> tuple[Machine, tuple[LeaseTable, ...], LeaseLedger | None]:
    """The machines, as they were when the service last stopped; a proxy has no leases."""

    def record_lease(address: IPv4Address, value: Mapping[str, Any] | None) -> None:
        journal.put(_LEASE, dotted(address), value)
        if ledgers:  # not yet, while the tables are filled from the journal
            ledgers[0].changed(address, value)

    def record_boot(key: str, value: Mapping[str, Any] | None) -> None:
        journal.put(_BOOT, key, value)

    reservations = Reservations(*subnets)
    ledgers: list[LeaseLedger] = []
    sharing = Sharing(_identity(chassis, journal))
    leases = tuple(LeaseTable(subnet, reservations.owner, record_lease, sharing, probing.taken) for subnet in subnets)
    book = PlannedClients(chassis.plan_book(), reservations, asked, chassis.log)
    tracker = BootTracker(record_boot, belongs=lambda mac: book.name(mac) is not None)
    unfit = restore(leases, list(journal.of_kind(_LEASE)), time.time())
    unread = journal.unreadable + tracker.restore(list(journal.of_kind(_BOOT)))
    if unfit or unread:
        chassis.log.warning("parts of the lease file were left out", leases_that_fit_no_more=unfit, unreadable=unread)
    address = settings.tftp_address or subnets[0].server
    files = BootFiles(
        address,
        settings.tftp_port,
        shelf,
        settings.http_port,
        settings.loader_rules,
        http_scripts=settings.script_urls == "http",
    )
    boots = Boots(tracker, files, firmware, book, chain_rom_ipxe=settings.chain_rom_ipxe)
    chassis.health.check(
        "HTTP boot", lambda: http_report(settings.http_port, boots.http_in_vain, time.time()), required=False
    )
    if proxy:
        return ProxyMachine(subnets[0].server, boots, book), (), None
    own, *relayed = (Scope(table.subnet, table) for table in leases)
    ledger = LeaseLedger(
        chassis.bus,
        sharing,
        leases,
        chassis.data,
        gone=settings.gone_servers,
        log=chassis.log,
        health=chassis.health,
    )
    ledgers.append(ledger)
    chassis.health.check("leases", lambda: lease_report(leases, time.time(), reservations.addresses()), required=False)
    chassis.health.check("reservations", lambda: reservation_report(book.not_honoured()), required=False)
    machine = DhcpMachine(
        Topology(own, relayed), boots, book, bootp=settings.bootp, beside_others=bool(settings.known_servers)
    )
    return machine, leases, ledger


def _identity(chassis: Chassis, journal: Journal) -> str:
    """What this server is called among several; the same for as long as its folder lasts."""
    held = next((value for key, value in journal.of_kind(_SERVER) if key == _IDENTITY), None)
    identity = held.get("id") if held is not None else None
    if not isinstance(identity, str):
        identity = secrets.token_hex(4)
        journal.put(_SERVER, _IDENTITY, {"id": identity})
    return server_name(chassis.node, identity)


def _advertiser(chassis: Chassis, settings: DhcpSettings, card: Card) -> Advertiser | None:
    """The router advertisements. Not having them costs boot time, so it is a warning and no failure."""
    if settings.router_advertisements == "off":
        return None
    try:
        return Advertiser(chassis, card, settings.router_advertisements)
    except OSError as error:
        text = f"iPXE will wait 13 s at each stage: IPv6 on {card.name} does not answer solicitations ({error})"
        chassis.log.warning("no router advertisements", reason=text)
        chassis.health.check("router advertisements", lambda: (False, text), required=False)
        return None


async def _watch_card(chassis: Chassis, server: DhcpServer) -> None:
    """Until told to stop: say each time when the card can no longer be reached. StartupError once it is gone."""
    state = server.reach()
    # A bridge without ports, or a switch that is powered on after us, is no reason to call the service not ready.
    chassis.health.check("card", lambda: state, required=False)
    if not state[0]:
        chassis.log.warning("no PC reaches us", reason=state[1])
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CARD_SECONDS):
                await chassis.stopping.wait()
                return
        before, state = state, server.reach()
        if state != before:
            if state[0]:
                chassis.log.info("PCs reach us again", card=state[1])
            else:
                chassis.log.warning("no PC reaches us", reason=state[1])


def _firmware(chassis: Chassis, settings: DhcpSettings, journal: Journal) -> FirmwareMemory:
    """What was learned of each PC's firmware until the service last stopped."""

    def record(key: str, value: Mapping[str, Any] | None) -> None:
        journal.put(_FIRMWARE, key, value)

    plans = chassis.plan_book()
    firmware = FirmwareMemory(record, patience=settings.loader_patience, belongs=lambda mac: plans.get(mac) is not None)
    unread = firmware.restore(list(journal.of_kind(_FIRMWARE)))
    if unread:
        chassis.log.warning("parts of what was learned of PCs' firmware were left out", unreadable=unread)
    return firmware


async def _look_for_loaders(
    chassis: Chassis, shelf: LoaderShelf, asked: AskedLoaders, firmware: FirmwareMemory
) -> None:
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        changed = await asyncio.to_thread(shelf.look)
        if changed:
            firmware.changed(changed)
            chassis.log.info("loaders changed", loaders=list(shelf))
            _tell_unfit(chassis, shelf)
            asked.looked()


def _tell_unfit(chassis: Chassis, shelf: LoaderShelf) -> None:
    for problem in shelf.problems():
        chassis.log.error("loader refused", file=problem, remedy=REPLACE)


def _tell_asked(chassis: Chassis, wrong: Unfulfilled) -> None:
    chassis.log.warning("loader of a rule not sent", reason=wrong.text, remedy=wrong.remedy)
    chassis.bus.emit(
        DhcpLoaderMissing(
            loader=wrong.wish.loader,
            group=wrong.wish.group or None,
            arch=wrong.wish.arch,
            reason=wrong.reason,
            remedy=wrong.remedy,
            at=datetime.now(UTC),
        )
    )


def _loaders(shelf: LoaderShelf, asked: AskedLoaders, settings: DhcpSettings) -> tuple[bool, str]:
    return loader_report(shelf.problems(), asked.wrong(), shelf, settings.loader_folders)


SERVICE: Final = Service("dhcp", DhcpSettings, run)
