"""The I/O around the decision machine: packets in from the card, replies out, promises kept.

How it works. When the socket is readable, up to `PACKETS_AT_ONCE` packets are read, decided and answered in one
go; an OFFER leaves at once. A reply that promises an address (`durable`) waits until what was recorded is on
disk: such replies gather while a thread writes and flushes the journal, and then leave together, so that a room
that starts at once costs some flushes and not one per PC. Events are emitted when the reply has left.

If the journal cannot be written, the ACKs of that flush are not sent (the clients ask again), the health check
`journal` fails, and every second the whole state is tried anew.

At most `MAX_WAITING` promises wait; what comes beyond is dropped and counted, which DHCP clients survive by
asking again.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

from bootlink_dhcp.decision import Decision, Machine, Promise, Reply, Via
from bootlink_dhcp.interface import Card, frame_address, open_frames, open_udp, packet_info, reach
from bootlink_dhcp.journal import Journal
from bootlink_dhcp.ledger import LeaseLedger
from bootlink_dhcp.machine import DECLINED, POOL_EXHAUSTED
from bootlink_dhcp.prober import Prober
from bootlink_dhcp.subnet import dotted
from bootlink_dhcp.tracker import BootPass
from bootlink_events import BootAddressed, BootFailed, BootLoaderChanged, EventData
from bootlink_runtime import Chassis, Distribution
from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt
from bootlink_wire.dhcp import DhcpMalformed, DhcpPacket
from bootlink_wire.dhcp_frame import udp_datagram

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
PACKETS_AT_ONCE: Final = 64
"""Packets per turn of the event loop: some 10 ms of work, after which timers and other sockets have theirs."""
MAX_WAITING: Final = 4096
"""ACKs that wait for the disk: a /20 full of PCs. About 8 MB."""
WAITS: Final = ("disk", "probe")  # what an answer may have to wait for
OVERHEARD: Final = ("request_for_another_server", "proxy_overheard")  # as the machines count them
PROBES_AT_ONCE: Final = 64
"""Offers that wait for a probe; beyond that they go out without one, as a firmware is not to be kept waiting."""
TIDY_SECONDS: Final = 1.0
"""Longest that a change which nothing waits for stays in memory alone."""


class DhcpServer:
    """One machine on one card."""

    def __init__(
        self, chassis: Chassis, card: Card, machine: Machine, journal: Journal, ledger: LeaseLedger | None, port: int
    ) -> None:
        """Opens the sockets: StartupError if they cannot be had."""
        self._ledger = ledger
        self._confirming: set[asyncio.Task[None]] = set()
        self._probing: set[asyncio.Task[None]] = set()
        self.prober: Prober | None = None  # whoever looks whether a new client's address is in use
        self._bus, self._telemetry = chassis.bus, chassis.telemetry
        self._log, self._health = chassis.log, chassis.health
        self._card, self._machine, self._journal = card, machine, journal
        self.overheard: Callable[[DhcpPacket, float], None] = lambda packet, now: None
        """Told of each request by which a client takes up another server's offer."""
        self.waits = {why: Distribution() for why in WAITS}  # seconds, of each round of ACKs and each probed OFFER
        self._waiting: list[Decision] = []
        self._untold: list[EventData] = []  # of replies that have left
        self._something_to_write = asyncio.Event()
        self._journal_error: str | None = None
        self._stopping = False
        self._packet_info = packet_info(card)
        self._loop = asyncio.get_running_loop()
        self._udp = open_udp(card, port)
        try:
            self._frames = open_frames(card)
        except BaseException:
            self._udp.close()
            raise
        self.port: int = self._udp.getsockname()[1]
        self._health.check("journal", self._check_journal)

    def start(self) -> None:
        """Answer from now on."""
        self._loop.add_reader(self._udp, self._readable)

    def stop(self) -> None:
        """Take no more packets; `keep_promises` answers what was taken, and ends."""
        self._loop.remove_reader(self._udp)
        self._stopping = True
        self._something_to_write.set()

    def close(self) -> None:
        """Close the sockets."""
        self._udp.close()
        self._frames.close()

    def reach(self) -> tuple[bool, str]:
        """Whether PCs can reach us now, and what is wrong if not. StartupError if the card is gone."""
        return reach(self._card, self._udp)

    def _check_journal(self) -> tuple[bool, str]:
        return self._journal_error is None, self._journal_error or "leases are on disk"

    # -- packets -----------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(PACKETS_AT_ONCE):
            try:
                data = self._udp.recv(dhcp.MAX_PACKET + 1)
            except BlockingIOError:
                break
            except OSError as error:
                self._log.warning("receiving failed", error=str(error))
                break
            self.received(data, time.time())
        if self._waiting or self._journal.pending:
            self._something_to_write.set()

    def received(self, data: bytes, now: float) -> None:
        """Decide about one datagram and answer it, or let the answer wait for the disk."""
        try:
            packet = dhcp.decode(data)
        except DhcpMalformed as error:
            self._health.count("dropped_malformed")
            self._log.debug("packet dropped", reason=str(error))
            return
        decision = self._machine.handle(packet, now)
        self._health.count(decision.count)
        if decision.count in OVERHEARD:
            self.overheard(packet, now)
        self._say(packet, decision)
        if not self._probes(decision, data):
            self.decided(decision)

    def _say(self, packet: DhcpPacket, decision: Decision) -> None:
        """What is to be read in the log of how a packet was decided."""
        mac = packet.chaddr.hex(":")
        if decision.count.startswith("dropped"):
            self._log.debug("packet dropped", reason=decision.count, mac=mac)
        elif decision.count == "nak" and decision.reply is not None:
            self._log.info("address refused", mac=mac, reason=decision.reply.packet.get(opt.MESSAGE_TEXT))
        elif decision.withheld:
            self._health.count("events_withheld", decision.withheld)
            self._log.warning(
                "too many unknown PCs: not all are told and enrolled",
                mac=mac,
                remedy="look for made-up MAC addresses on this network; add your PCs by hand: bootlink client add MAC",
            )
        elif decision.count == "decline":
            address = packet.get(opt.REQUESTED_ADDRESS)
            self._log.warning("address declined: another host has it", mac=mac, address=str(address), remedy=DECLINED)
        elif decision.count == "pool_exhausted" and not decision.events:  # else the events' own line says it
            cause, remedy = POOL_EXHAUSTED
            self._log.warning("no address offered", mac=mac, cause=cause, remedy=remedy)

    def _probes(self, decision: Decision, data: bytes) -> bool:
        """Whether this offer waits until it is known that nobody else has the address."""
        fresh = decision.fresh
        if self.prober is None or fresh is None or self.prober.clear(fresh.address):
            return False
        if len(self._probing) >= PROBES_AT_ONCE:
            self._health.count("offered_unprobed")
            return False
        task = asyncio.create_task(
            self._offer_probed(self.prober, decision, fresh, data), name=f"probe {fresh.address}"
        )
        self._probing.add(task)
        task.add_done_callback(self._probing.discard)
        return True

    async def _offer_probed(self, prober: Prober, decision: Decision, fresh: Promise, data: bytes) -> None:
        began = perf_counter()
        taken = await prober.ask(fresh.address, fresh.client)
        self.waits["probe"].record(perf_counter() - began)
        if not taken:
            self.decided(decision)
            return
        for event in decision.events:
            self._report(event)
        self.received(data, time.time())  # there is another address for it

    def decided(self, decision: Decision) -> None:
        """Send a decision's reply, and tell its events; now, or once it is on disk."""
        if not decision.durable:
            self._send([decision])
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(decision)
        else:
            self._health.count("dropped_disk_too_slow")

    def _send(self, decisions: Iterable[Decision]) -> None:
        for decision in decisions:
            if decision.reply is not None:
                self._send_reply(decision.reply)
            if decision.begun is not None and self._telemetry.recording:
                self._trace_offer(decision.begun, decision.reply)
            if decision.events and not self._untold:
                self._loop.call_soon(self._tell)  # the replies that are due leave first
            self._untold += decision.events

    def _tell(self) -> None:
        """Report what became of the replies that have left."""
        told, self._untold = self._untold, []
        for event in told:
            self._report(event)

    def _send_reply(self, reply: Reply) -> None:
        payload = dhcp.encode(reply.packet)
        try:
            if reply.via is Via.FRAME:
                packet = udp_datagram(self._card.own.ip, self.port, reply.address, CLIENT_PORT, payload)
                self._frames.sendto(packet, frame_address(self._card, reply.packet.chaddr))
            else:
                port = SERVER_PORT if reply.via is Via.RELAY else CLIENT_PORT
                self._udp.sendmsg([payload], self._packet_info, socket.MSG_DONTWAIT, (dotted(reply.address), port))
        except (OSError, ValueError) as error:  # the card is down, its queue is full, or the packet is too long
            self._health.count("replies_not_sent")
            self._log.warning("reply not sent", to=reply.packet.chaddr.hex(":"), via=str(reply.via), error=str(error))

    def _report(self, event: EventData) -> None:
        self._bus.emit(event)
        if isinstance(event, BootAddressed):
            self._telemetry.boot_span(
                event.boot_id,
                "dhcp.request",
                event.ended,  # the REQUEST came
                datetime.now(UTC),  # and its ACK has left
                _attributes(event.pass_, event.mac)
                | {"client.address": str(event.address), "bootlink.boot_file": event.boot_file},
            )
            self._log.info(
                "addressed",
                mac=event.mac,
                client=event.client,
                boot_id=str(event.boot_id),
                stage=event.pass_,
                address=str(event.address),
                boot_file=event.boot_file,
            )
        elif isinstance(event, BootLoaderChanged):
            self._log.warning(
                "another loader is given to this PC",
                mac=event.mac,
                boot_id=str(event.boot_id),
                former=event.former,
                loader=event.loader,
                boots=event.boots,
                remedy=f"see what the PC shows after {event.former}; a new file of that name is tried at once",
            )
        elif isinstance(event, BootFailed):
            attributes = {"bootlink.client.mac": event.mac, "error.type": "no_offer"}
            self._telemetry.boot_span(
                event.boot_id, "dhcp.discover", event.started, event.ended, attributes, error=event.cause
            )
            self._log.error(
                "boot failed", mac=event.mac, boot_id=str(event.boot_id), cause=event.cause, remedy=event.remedy
            )

    def _trace_offer(self, boot: BootPass, reply: Reply | None) -> None:
        """From a pass's first DISCOVER to its OFFER, which has just left."""
        mac = reply.packet.chaddr.hex(":") if reply is not None else ""
        began = datetime.fromtimestamp(boot.began, UTC)
        self._telemetry.boot_span(boot.boot_id, "dhcp.discover", began, datetime.now(UTC), _attributes(boot.pass_, mac))

    # -- promises ----------------------------------------------------------------------------------------------

    async def keep_promises(self) -> None:
        """Until `stop`: write what was recorded, then send what waited for that. Ends with everything on disk."""
        while not self._stopping:
            if not self._waiting:
                try:
                    async with asyncio.timeout(TIDY_SECONDS):
                        await self._something_to_write.wait()
                except TimeoutError:
                    if not self._journal.pending:
                        continue
            self._something_to_write.clear()
            await self._flush()
        await self._flush()
        for task in self._probing:
            task.cancel()
        await asyncio.gather(*self._confirming, *self._probing, return_exceptions=True)
        self._tell()

    async def _flush(self) -> None:
        waiting, self._waiting = self._waiting, []
        batch = self._journal.take()
        try:
            if batch.lines or batch.whole:
                began = perf_counter()
                await asyncio.to_thread(self._journal.write, batch)
                self.waits["disk"].record(perf_counter() - began)
        except OSError as error:
            self._journal.failed()
            if self._journal_error is None:
                self._log.error(
                    "leases cannot be written, so none is promised",
                    error=str(error),
                    remedy="make room on that disk, or repair it; it is tried again every second",
                )
            self._journal_error = f"the lease file cannot be written: {error}"
            self._health.count("promises_not_kept", len(waiting))
            if not self._stopping:
                await asyncio.sleep(TIDY_SECONDS)  # a full disk is not freed sooner by asking often
            return
        if self._journal_error is not None:
            self._journal_error = None
            self._log.info("leases are written again")
        self._send(decision for decision in waiting if self._ours(decision))

    def _ours(self, decision: Decision) -> bool:
        """Whether to send this now. What other servers must agree to first is sent when they have."""
        promise = decision.promised
        if promise is None or self._ledger is None:
            return True
        if self._ledger.silent(promise.until):
            self._health.count("silent_while_cut_off")
            return False
        if not self._ledger.must_confirm(promise.address):
            return True
        if len(self._confirming) >= MAX_WAITING:
            self._health.count("dropped_bus_too_slow")
            return False
        task = asyncio.create_task(
            self._send_confirmed(self._ledger, decision, promise), name=f"confirm {promise.address}"
        )
        self._confirming.add(task)
        task.add_done_callback(self._confirming.discard)
        return False

    async def _send_confirmed(self, ledger: LeaseLedger, decision: Decision, promise: Promise) -> None:
        if await ledger.confirm(promise.address, promise.client, promise.until):
            self._send([decision])
        else:
            self._health.count("not_confirmed")
            self._log.debug("no answer: another server has the lease", mac=promise.client, address=str(promise.address))


def _attributes(pass_: str, mac: str) -> dict[str, str]:
    """What the spans of both of a boot's exchanges say."""
    return {"network.transport": "udp", "bootlink.client.mac": mac, "bootlink.dhcp.pass": pass_}
