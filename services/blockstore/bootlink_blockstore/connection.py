"""One TCP connection to the iSCSI portal, around its session.

Theory of operation. A `Connection` is a thin shell: bytes from the transport go into its session, what the session put
out goes to the transport (`writelines`: no join, no copy under uvloop), and what the session wants to run becomes a
task. A cached read passes through `data_received` and is done.

Back-pressure. While the peer does not read and the transport's buffer is above WRITE_HIGH, the session is held and the
transport is not read. So what one connection can have in memory is the session's limits plus WRITE_HIGH and one output.

Time. A connection has LOGIN_SECONDS to log in. TCP keep-alive finds peers that are gone, also firmware, which cannot be
pinged.
"""

from __future__ import annotations

import asyncio
import math
import socket
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, cast

from bootlink_blockstore.access import NotAdmitted
from bootlink_blockstore.boot import Attached, Boot
from bootlink_blockstore.chap import Chap
from bootlink_blockstore.login import PORTAL_GROUP, Admission, Refusal
from bootlink_blockstore.scsi.device import Nexus, Outcome
from bootlink_blockstore.session import Session
from bootlink_blockstore.transfer import Task
from bootlink_events import BootDiskDetached, BootDiskUsed
from bootlink_events.models import InitiatorKind
from bootlink_wire import scsi_sense as sense
from bootlink_wire.iscsi_codes import LoginStatus

if TYPE_CHECKING:
    from bootlink_blockstore.portal import Portal

LOGIN_SECONDS: Final = 15.0  # PROTOCOLS 6: a login takes milliseconds; the time is for a PC that boots slowly
LOGINS_PER_PEER: Final = 32  # connections without a login, of one address
SILENT_SECONDS: Final = 2.0  # without I/O until a session's first use of its disk counts as over
WRITE_HIGH: Final = 1 << 20  # bytes in the transport's buffer until the session is held: a burst
WRITE_LOW: Final = 1 << 18
# Of a connection's turns one in eight is measured: that takes some 0.4 µs, of 6 to 15 µs for a cached read.
TURNS_UNMEASURED: Final = 7
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))  # seconds, count


class Connection(asyncio.Protocol):
    """One TCP connection and its session."""

    def __init__(self, portal: Portal) -> None:
        self._portal = portal
        self._journal = portal.journal
        self._loop = asyncio.get_running_loop()
        self._session = Session(self, portal.journal.count)
        self._turns = portal.turns
        self._turn = TURNS_UNMEASURED  # the first is measured
        self._transport: asyncio.Transport | None = None
        self._peer = ""
        self._name = portal.next_name()
        self._began = datetime.now(UTC)
        self._began_at = self._loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        self.attaching: asyncio.Task[None] | None = None  # a login that waits for its disk
        self._running: set[asyncio.Task[None]] = set()
        self._boot: Boot | None = None
        self.nexuses: dict[int, Nexus] = {}
        self._used: set[int] = set()  # disks whose first use was told
        self._counted = False
        self._paused = False  # the peer does not read what is written
        self._reading = True
        self._lost = False
        self._impatient = True  # it may be iPXE, which waits for acknowledgements in the middle of a PDU

    @property
    def kind(self) -> InitiatorKind | None:
        """Who holds this session; None while it has no disk."""
        admission = self._session.admission
        return None if self._boot is None or admission is None else ("firmware" if admission.firmware else "os")

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        host, port = transport.get_extra_info("peername")[:2]
        self._peer = f"{host}:{port}"
        logins = self._portal.logins
        if logins[host] >= LOGINS_PER_PEER:
            self._journal.count("connections_refused")
            self._transport.abort()
            return
        self._portal.make_room()
        logins[host] += 1
        self._counted = True
        self._portal.half_open[self] = None
        self._portal.connections.add(self)
        self._deadline = self._loop.call_later(LOGIN_SECONDS, self._login_overdue)
        self._transport.set_write_buffer_limits(WRITE_HIGH, WRITE_LOW)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)

    def data_received(self, data: bytes) -> None:
        session = self._session
        self._turn = turn = self._turn + 1 & TURNS_UNMEASURED
        began = 0.0 if turn else perf_counter()
        if session.receive(data, self._loop.time()) and self._transport is not None:
            self._transport.writelines(session.out)
            session.out.clear()
            if not turn:
                self._turns.record(perf_counter() - began)
            return
        self._pump()
        if self._impatient and self._session.partial:
            # iPXE sends a PDU's data as a segment of its own, after its header was acknowledged, and the kernel would
            # keep that acknowledgement back for 40 ms, in the hope of an answer to send it with.
            assert self._transport is not None
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def pause_writing(self) -> None:
        self._paused = True
        self._session.held = True

    def resume_writing(self) -> None:
        self._paused = False
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        why = getattr(exc, "strerror", None) or exc
        self._session.close(f"connection lost: {why}" if exc else "connection closed by the initiator")
        self._login_over()
        self._lost = True
        self._settle()

    # Host

    def start(self, task: Task, running: Coroutine[Any, Any, Outcome]) -> None:
        job = self._loop.create_task(self._run(task, running), name=f"{self._name} task {task.itt:x}")
        self._running.add(job)
        job.add_done_callback(self._ended)

    def authenticate(self, admission: Admission) -> Chap | None:
        try:
            return self._portal.attachments.authenticate(admission, self._began)
        except NotAdmitted as error:
            raise Refusal(error.status, error.cause) from None

    def unproven(self, admission: Admission, why: str) -> None:
        self._portal.attachments.unproven(admission, self._began, why)

    def targets(self, initiator: str) -> list[tuple[str, str]]:
        address = self._portal.advertise
        if not address and self._transport is not None:
            host, port = self._transport.get_extra_info("sockname")[:2]
            address = f"{host}:{port}"
        return [(target, f"{address},{PORTAL_GROUP}") for target in self._portal.attachments.targets(initiator)]

    def wake(self) -> None:
        self._pump()

    # Seat

    async def evict(self, why: str) -> None:
        self._session.close(why)
        if self._transport is not None:
            self._transport.abort()
        if self._running:
            await asyncio.wait(self._running)

    # Inside

    def ask_to_log_out(self, seconds: float) -> bool:
        """Ask the initiator to log out within this time. False if it cannot be asked."""
        asked = self._session.ask_to_log_out(math.ceil(seconds))
        self._pump()
        return asked

    def tick(self, now: float) -> None:
        self._session.tick(now)
        self._tell_use(now)
        self._pump()

    def _pump(self) -> None:
        """Send what the session put out, and see what else it wants."""
        session, transport = self._session, self._transport
        while transport is not None and not transport.is_closing():
            if session.out:
                digests = session.digests
                transport.writelines(session.out if digests is None else digests.seal(session.out))
                session.out.clear()
            if session.closing:
                transport.close()  # once what was written is sent
                return
            if session.more and not self._paused:  # where it is, `resume_writing` takes it up
                self._loop.call_soon(self._go_on)  # others first
                return
            if session.stalled:
                if self._reading:
                    self._reading = False
                    transport.pause_reading()
                if session.held and self.attaching is None and not session.full_feature and not self._paused:
                    self.attaching = self._loop.create_task(self._attach(), name=f"{self._name} attach")
                return
            if self._reading:
                return
            self._reading = True
            transport.resume_reading()
            session.receive(b"")
        session.out.clear()

    def _go_on(self) -> None:
        """Take up what was left when the session had stopped early."""
        if not self._paused and self.attaching is None and not self._session.closing:
            self._session.resume()
        self._pump()

    def _ended(self, job: asyncio.Task[None]) -> None:
        self._running.discard(job)
        self._settle()

    def _settle(self) -> None:
        """Leave the disk once the connection is lost and nothing runs any more. Until then the seat stays taken, so
        that whoever takes it, or the disk, waits for writes that can still land."""
        if self._lost and not self._running and self.attaching is None:
            self._portal.connections.discard(self)
            if self._boot is not None:
                self._leave(self._boot)

    async def _run(self, task: Task, running: Coroutine[Any, Any, Outcome]) -> None:
        began = perf_counter()
        try:
            outcome = await running
        except Exception as error:
            # A bug or an error nobody foresaw costs this command, not the session and not the service.
            self._journal.count("commands_failed_unforeseen")
            self._journal.log.error("command failed", session=self._name, error=repr(error), exc_info=error)
            outcome = task.unit.failure(sense.INTERNAL_FAILURE)
        self._portal.tasks["write" if task.write else "read" if task.read else "other"].record(perf_counter() - began)
        self._session.finish(task, outcome)
        self._pump()

    async def _attach(self) -> None:
        """A login waits for its disk."""
        session, attachments = self._session, self._portal.attachments
        admission = session.admission
        assert admission is not None
        try:
            if admission.discovery:
                session.admit({}, None, attachments.next_tsih())
            else:
                boot = await attachments.attach(admission, self, self._began)
                if session.closing:
                    attachments.leave(boot, admission, self)
                    return
                self._boot = boot
                session.admit(boot.units, boot.absent, attachments.next_tsih())
                self._journal.count("logins_admitted")
                self.nexuses = dict(session.nexuses)
                self._impatient = admission.firmware
                kind: InitiatorKind = "firmware" if admission.firmware else "os"
                for attached in boot.disks.values():
                    self._journal.attached(attached.manifest, kind, self._name, self._peer, self._began)
        except NotAdmitted as error:
            self._journal.count("logins_not_admitted")
            session.refuse(error.status, error.cause)
        except Exception as error:
            self._journal.count("logins_failed_unforeseen")
            self._journal.log.error("login failed", session=self._name, error=repr(error), exc_info=error)
            session.refuse(LoginStatus.TARGET_ERROR, repr(error))
        finally:
            self.attaching = None
            self._settle()
        self._login_over()
        self._go_on()

    def _login_over(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._portal.half_open.pop(self, None)
        if self._counted:
            self._counted = False
            host = self._peer.rpartition(":")[0]
            self._portal.logins[host] -= 1
            if not self._portal.logins[host]:
                del self._portal.logins[host]

    def _login_overdue(self) -> None:
        if self.attaching is None:
            self._journal.count("logins_overdue")
            self.drop("no login in time")

    def drop(self, why: str) -> None:
        """End a connection that has not logged in."""
        self._login_over()
        self._session.close(why)
        if self._transport is not None:
            self._transport.abort()

    def _leave(self, boot: Boot) -> None:
        admission = self._session.admission
        assert admission is not None
        self._portal.attachments.leave(boot, admission, self)
        self._portal.left(self.nexuses.values())
        for lun, attached in boot.disks.items():
            told = self._told(lun, attached, admission)
            event = BootDiskDetached(**told, reason=self._session.closing)
            self._journal.detached(event, used=lun in self._used)

    def _tell_use(self, now: float) -> None:
        """Tell of each disk once, when the session has been silent for a while: a firmware's session may stay open
        for as long as the PC runs, and its part of the boot is over long before."""
        admission = self._session.admission
        if self._boot is None or admission is None:
            return
        for lun, nexus in self.nexuses.items():
            if lun not in self._used and nexus.last_io is not None and now - nexus.last_io >= SILENT_SECONDS:
                self._used.add(lun)
                self._journal.used(BootDiskUsed(**self._told(lun, self._boot.disks[lun], admission)))

    def _told(self, lun: int, attached: Attached, admission: Admission) -> dict[str, Any]:
        """What a session did at one of its disks, as the fields of `DiskIo`."""
        nexus, manifest = self.nexuses[lun], attached.manifest
        return {
            "mac": manifest.mac,
            "client": manifest.client,
            "boot_id": manifest.boot_id,
            "started": self._began,
            "ended": datetime.now(UTC),
            "initiator": "firmware" if admission.firmware else "os",
            "lun": lun,
            "session": self._name,
            "reads": nexus.reads,
            "bytes_read": nexus.bytes_read,
            "writes": nexus.writes,
            "bytes_written": nexus.bytes_written,
            "first_read": self._wall(nexus.first_read),
            "last_io": self._wall(nexus.last_io),
        }

    def _wall(self, at: float | None) -> datetime | None:
        """A time of the event loop as a date."""
        return None if at is None else self._began + timedelta(seconds=at - self._began_at)
