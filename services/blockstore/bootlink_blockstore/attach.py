"""Which disk a login gets: the plan, the fence, and what is held already (DESIGN, section 3).

Theory of operation. A client has at most one current boot here, known by its boot id. A login belongs to a boot:

    its boot id is          then
    older than the fence    refused: that boot is over
    the current one         joins it: firmware, operating system and reconnects share one write-back
    the fence's, not open   resumed from the manifests (the service was restarted, or the client was away for long);
                            refused if the machine was restarted since
    newer                   a new boot begins by the plan; the former one is fenced, and its sessions end. Where a
                            discarded boot was asked back, its write-backs and what they lie upon take the plan's place.
                            Refused where the plan says that another block store holds what lasts of the client
    none in the name        joins the current boot, or begins one under an id minted here

What was chosen at a boot menu is in the target's name. A PC whose choice did not start goes back to its menu, in the
same boot. So a login to another entry than the current one ends the sessions to that, and gets a write-back of its
own; the former one's again where that entry was chosen before. A target without an entry is the current boot's.

The fence is the newest boot id that the client's manifests and its ledger name (see `holdings`), so it outlives the
process. A boot whose write-back was thrown away, as after a commit, is over, though it may be the fence. A boot whose
id lies far in the future is refused: it would lock its client out until then. Where the fence itself is there (the
clock was wrong, and has been set back), its boot goes on, and the next may begin.

Who may log in at all is `access`'s. Within a boot, a login from the same initiator name
and ISID reinstates: the former session is ended, and its tasks are dead, before the new one is admitted (RFC 7143,
section 6.3.5).

All steps of one client happen one after the other. Whoever is refused hears a status; the cause and the remedy go to
the log and into `boot.failed`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from datetime import datetime
from functools import partial
from typing import Final, NoReturn, TypeVar

from bootlink_blockstore.access import Access, NotAdmitted, Plans
from bootlink_blockstore.boot import Attached, Boot, Seat
from bootlink_blockstore.chap import Chap
from bootlink_blockstore.disk import OUT_OF_SPACE, ClientDisk
from bootlink_blockstore.holdings import Holdings
from bootlink_blockstore.image import Image
from bootlink_blockstore.journal import Journal
from bootlink_blockstore.library import Library
from bootlink_blockstore.login import Admission
from bootlink_blockstore.overlay import Overlay
from bootlink_blockstore.pressure import Allowance
from bootlink_blockstore.scsi.device import LogicalUnit
from bootlink_blockstore.scsi.table import TABLE
from bootlink_blockstore.writeback import Manifest, overlay_name
from bootlink_disks import DiskError
from bootlink_events import BootId, BootPlan, LayerPlan, parse_initiator, parse_target, target_entry, target_iqn
from bootlink_events import Chap as ChapRule
from bootlink_wire.iscsi_codes import LoginStatus
from bootlink_wire.scsi_vpd import Identity

T = TypeVar("T")

FUTURE_LIMIT: Final = 24 * 3600 * 1000  # milliseconds that a boot id may be ahead of our clock: a zone set wrongly
FUTURE_STEP: Final = (
    1000  # milliseconds that it may be ahead of the fence, where that is: ids are minted 1 ms apart then
)
IDLE_SECONDS: Final = 600.0  # without a session until a boot's files are closed; it is resumed when it comes back


class Attachments:
    """All clients' boots on this node."""

    def __init__(
        self,
        plans: Plans,
        holdings: Holdings,
        library: Library,
        executor: Executor,
        journal: Journal,
        access: Access | None = None,
        *,
        node: str = "",
        limit: int = 0,
    ) -> None:
        """`node`: the name that plans call this block store; `limit`: bytes that one client may write, 0 for no
        limit."""
        self._node = node
        self._access = access or Access()
        self._plans = plans
        self.holdings = holdings
        self._writebacks = holdings.writebacks
        self._library = library
        self._executor = executor
        self._journal = journal
        self._limit = limit
        self._boots: dict[str, Boot] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._tsih = 0

    @property
    def boots(self) -> list[Boot]:
        return list(self._boots.values())

    async def load(self) -> None:
        """Take in what former runs have left on disk."""
        for problem in await self.holdings.load():
            self._journal.log.error("manifest unreadable", problem=problem, remedy="restore it, or remove the file")

    def next_tsih(self) -> int:
        """A session handle (RFC 7143, section 11.12.6): never 0."""
        self._tsih = self._tsih % 0xFFFF + 1
        return self._tsih

    def targets(self, initiator: str) -> list[str]:
        """The targets that this initiator may open. Who does not say which client it is may see none."""
        mac, _ = parse_initiator(initiator)
        if mac is None:
            return []
        plan = self._plans.get(mac)
        may = mac in self._boots or (plan is not None and plan.refusal is None and bool(plan.disks))
        return [target_iqn(mac)] if may else []

    def authenticate(self, admission: Admission, started: datetime) -> Chap | None:
        """What this initiator must prove before it may enter; None if nothing. NotAdmitted if it can prove nothing."""
        mac = parse_initiator(admission.initiator)[0] if admission.discovery else parse_target(admission.target)
        if mac is None:
            return None  # no client's: it sees no target, and `attach` gives it none
        try:
            return self._access.exchange(admission, self._chap(mac))
        except NotAdmitted as refusal:
            self._tell(mac, admission, started, refusal)
            raise

    def unproven(self, admission: Admission, started: datetime, why: str) -> None:
        """An initiator did not prove what `authenticate` asked for."""
        mac = parse_initiator(admission.initiator)[0]
        assert mac is not None  # or it would not have been asked
        remedy = "restart the PC; if it stays, give tftp and blockstore the same BOOTLINK_CLUSTER_KEY"
        status = LoginStatus.AUTHENTICATION_FAILURE
        self._tell(mac, admission, started, NotAdmitted(status, f"the client did not log in by CHAP: {why}", remedy))

    def _chap(self, mac: str) -> ChapRule:
        """What this client's logins must prove: by its plan, or as its last boot began where the plan has gone."""
        plan = self._plans.get(mac)
        if plan is not None:
            return plan.chap
        held = max(self.holdings.of(mac), key=lambda manifest: manifest.boot_id, default=None)
        return "off" if held is None else held.chap

    def lock(self, mac: str) -> asyncio.Lock:
        """Whoever changes what a client has here holds it."""
        return self._locks.setdefault(mac, asyncio.Lock())

    def boot_of(self, mac: str) -> Boot | None:
        """The client's boot, if its files are open."""
        return self._boots.get(mac)

    async def disconnect(self, mac: str, why: str) -> int:
        """End a client's sessions, and close its files. How many there were; they may log in again."""
        async with self.lock(mac):
            boot = self._boots.get(mac)
            if boot is None:
                return 0
            sessions = len(boot.seats)
            await boot.evict_all(why)
            await self._close(boot)
            return sessions

    async def close_boot(self, boot: Boot) -> None:
        """Close the files of a boot that no session holds, now and not only when it has been idle for long. The
        caller holds the client's lock."""
        assert not boot.seats
        await self._close(boot)

    async def attach(self, admission: Admission, seat: Seat, started: datetime) -> Boot:
        """The boot that this login belongs to, with a seat taken. NotAdmitted if it gets none."""
        mac = parse_target(admission.target)
        if mac is None:
            raise NotAdmitted(
                LoginStatus.NOT_FOUND,
                f"there is no target {admission.target}",
                "a client's target is iqn.2026-11.io.bootlink: and its MAC address with dashes",
            )
        _, wanted = parse_initiator(admission.initiator)
        try:
            self._access.check_name(admission, mac)
            if not admission.proved and self._chap(mac) != "off":
                raise NotAdmitted(  # the plan has changed since `authenticate`
                    LoginStatus.AUTHENTICATION_FAILURE, f"client {mac} must log in by CHAP", "restart the PC"
                )
            if not self.holdings.of(mac) and self._plans.get(mac) is None:
                self._unknown(mac)
            async with self.lock(mac):
                boot = await self._boot(mac, wanted, target_entry(admission.target))
                await boot.take(admission, seat)
                return boot
        except NotAdmitted as refusal:
            self._tell(mac, admission, started, refusal)
            raise

    def _tell(self, mac: str, admission: Admission, started: datetime, refusal: NotAdmitted) -> None:
        plan = self._plans.get(mac)
        boot_id = parse_initiator(admission.initiator)[1] or self.holdings.fence(mac) or BootId.mint()
        self._journal.failed(mac, plan.client if plan else None, boot_id, started, refusal.cause, refusal.remedy)

    def leave(self, boot: Boot, admission: Admission, seat: Seat) -> None:
        """A session has ended."""
        key = (admission.initiator, admission.isid)
        if boot.seats.get(key) is seat:
            del boot.seats[key]
        boot.idle_since = time.monotonic()

    async def close_idle(self) -> None:
        """Close the files of boots that nobody has used for long."""
        now = time.monotonic()
        for mac, boot in list(self._boots.items()):
            async with self.lock(mac):
                if not boot.seats and now - boot.idle_since > IDLE_SECONDS and self._boots.get(mac) is boot:
                    await self._close(boot)

    async def close(self) -> None:
        """End all sessions and close all files."""
        for mac, boot in list(self._boots.items()):
            async with self.lock(mac):
                if self._boots.get(mac) is boot:  # else it was closed as idle meanwhile
                    await boot.evict_all("the block store stops")
                    await self._close(boot)

    # A login's boot

    def _unknown(self, mac: str) -> NoReturn:
        raise NotAdmitted(
            LoginStatus.NOT_FOUND,
            f"there is no boot plan for client {mac}",
            f"link it to an image: bootlink link set {mac} IMAGE",
        )

    async def _boot(self, mac: str, wanted: BootId | None, entry: str) -> Boot:
        fence, over = self.holdings.fence(mac), self.holdings.over(mac)
        boot_id = wanted or (BootId.mint(after=fence) if fence is None or fence == over else fence)
        if boot_id == over:
            raise NotAdmitted(
                LoginStatus.AUTHORIZATION_FAILURE,
                f"boot {boot_id} of client {mac} is over: its write-back was taken away",
                "restart the PC",
            )
        if fence is not None and boot_id < fence:
            raise NotAdmitted(
                LoginStatus.AUTHORIZATION_FAILURE,
                f"boot {boot_id} of client {mac} is over: boot {fence} has begun since",
                "restart the PC, if it is not the one that runs the newer boot",
            )
        latest = max(time.time() * 1000 + FUTURE_LIMIT, fence.timestamp_ms + FUTURE_STEP if fence else 0)
        if boot_id.timestamp_ms > latest:
            raise NotAdmitted(
                LoginStatus.AUTHORIZATION_FAILURE,
                f"boot {boot_id} of client {mac} lies in the future",
                "set the clocks of the servers right",
            )
        boot = self._boots.get(mac)
        if boot is not None and boot.boot_id == boot_id and entry in ("", boot.entry):
            return boot
        held = self._held(mac, boot_id, entry)
        if held and {m.lun for m in held} == set(held[0].luns):
            if not any(map(self._writebacks.outlived, held)):
                return await self._resume(mac, held, boot)
            if wanted is not None:
                raise NotAdmitted(
                    LoginStatus.AUTHORIZATION_FAILURE,
                    f"the block store's machine was restarted since boot {boot_id} began: writes of it may be lost",
                    "restart the PC",
                )
            boot_id = BootId.mint(after=fence)
        return await self._begin(mac, boot_id, entry)

    def _held(self, mac: str, boot_id: BootId, entry: str) -> list[Manifest]:
        """The manifests of a boot with this entry; where none is named, with the one that began last. Kept ones that
        several entries share have the last one's name, and are among them if the plan says so."""
        held = self.holdings.of_boot(mac, boot_id, entry)
        whole = self._plans.get(mac)
        plan = whole.chosen(held[0].entry) if held and whole is not None else None
        if plan is None:
            return held
        luns = {manifest.lun for manifest in held}
        others = [disk for disk in plan.disks if disk.lun not in luns and disk.policy != "discard"]
        shared = {overlay_name(disk, boot_id) for disk in others}
        return held + [m for m in self.holdings.of(mac) if m.boot_id == boot_id and m.file in shared]

    async def _resume(self, mac: str, manifests: list[Manifest], former: Boot | None) -> Boot:
        self._require_sound(mac, {manifest.file for manifest in manifests})
        images = await self._images([self._layers(manifest) for manifest in manifests])
        if former is not None:  # of this boot, with another entry; a former boot is never resumed over
            await self._end(former, f"{manifests[0].entry} was chosen at the boot menu")
        try:
            overlays = await self._in_thread(lambda: self._writebacks.resume(manifests))
        except (OSError, ValueError) as error:
            self._release(images)
            raise NotAdmitted(
                LoginStatus.TARGET_ERROR,
                f"the write-back of boot {manifests[0].boot_id} cannot be opened: {error}",
                "restart the PC: it then begins with a fresh write-back",
            ) from error
        self._journal.log.info("boot resumed", mac=mac, boot_id=str(manifests[0].boot_id))
        return self._open(mac, list(zip(manifests, images, overlays, strict=True)))

    async def _begin(self, mac: str, boot_id: BootId, entry: str) -> Boot:
        whole = self._plans.get(mac)
        if whole is None:
            self._unknown(mac)
        plan = whole if whole.refusal is not None else whole.chosen(entry)
        if plan is None:
            raise NotAdmitted(
                LoginStatus.NOT_FOUND,
                f"the boot menu of client {whole.client} offers no {entry}",
                "restart the PC: it then shows the menu as it is now",
            )
        if plan.refusal is not None:
            raise NotAdmitted(LoginStatus.AUTHORIZATION_FAILURE, plan.refusal.detail, plan.refusal.remedy)
        if not plan.disks:
            raise NotAdmitted(
                LoginStatus.NOT_FOUND,
                f"the boot plan of client {plan.client} names no disk",
                f"link it to an image: bootlink link set {plan.client} IMAGE",
            )
        if plan.home not in (None, self._node) and any(disk.policy != "discard" for disk in plan.disks):
            raise NotAdmitted(
                LoginStatus.AUTHORIZATION_FAILURE,
                f"what client {plan.client} keeps lies on block store {plan.home}, and would be missing on this one",
                "restart the PC: it is sent there",
            )
        back = self.holdings.returning(mac, None if whole.menu is None else entry)
        if back:
            try:
                return await self._start(plan, boot_id, entry, back)
            except NotAdmitted as refusal:
                cause, files = refusal.cause, [manifest.file for manifest in back]
                self._journal.log.error("write-back cannot return", client=plan.client, files=files, cause=cause)
                await self._have_returned(mac)  # the client must boot all the same, as it does without it
        return await self._start(plan, boot_id, entry, [])

    async def _start(self, plan: BootPlan, boot_id: BootId, entry: str, back: list[Manifest]) -> Boot:
        """Begin a boot by this plan, with what comes `back`."""
        mac, holdings = plan.mac, self.holdings
        former = self._boots.get(mac)
        intended = self._writebacks.intended(plan, boot_id, entry, back)
        self._require_sound(mac, {manifest.file for manifest in intended})
        images = await self._images([self._layers(manifest) for manifest in intended])
        former_id = holdings.fence(mac)
        if former is not None:
            again = former.boot_id == boot_id
            await self._end(former, f"{entry} was chosen at the boot menu" if again else f"boot {boot_id} took over")
        try:
            begun = await self._begin_writebacks(intended)
        except (OSError, ValueError) as error:
            self._release(images)
            raise NotAdmitted(
                LoginStatus.OUT_OF_RESOURCES,
                f"no write-back could be made for client {plan.client}: {error}",
                f"free space below {self._writebacks.root}, or see why it cannot be written to",
            ) from error
        self._supersede(mac, former_id, intended)
        if back:
            await self._have_returned(mac)
        for manifest in back:
            self._journal.restored(manifest, boot_id, self._writebacks.usage(manifest))
        return self._open(mac, [(m, image, overlay) for (m, overlay), image in zip(begun, images, strict=True)])

    async def _have_returned(self, mac: str) -> None:
        try:
            await self.holdings.have_returned(mac)
        except OSError as error:  # a restart of the service sees that they have, by their manifests
            self._journal.log.warning("ledger not written", mac=mac, error=str(error))

    async def _begin_writebacks(self, manifests: list[Manifest]) -> list[tuple[Manifest, Overlay]]:
        """What `Writebacks.begin` gives; on a full disk once more, with the space that nobody needs any longer."""
        try:
            return await self._in_thread(lambda: self._writebacks.begin(manifests))
        except OSError as error:
            if error.errno not in OUT_OF_SPACE:
                raise
        holdings, mac = self.holdings, manifests[0].mac
        for client in holdings.clients:
            for boot in holdings.reclaimable(client):
                for manifest in boot.manifests:
                    await holdings.reclaim(manifest)
        # And the former boot's own: it is fenced already. Its manifest stays, as that is the fence.
        await holdings.empty(mac, manifests)
        return await self._in_thread(lambda: self._writebacks.begin(manifests))

    def _layers(self, manifest: Manifest) -> tuple[LayerPlan, ...]:
        """What a write-back's content is read from now: a merge may have put other layers in the place of those that
        its manifest names."""
        plan = self._plans.get(manifest.mac)
        if plan is not None and manifest.content:
            entries = plan.menu.entries if plan.menu else ()
            for disk in (*plan.disks, *(disk for entry in entries for disk in entry.disks)):
                if disk.content == manifest.content:
                    return disk.layers
        return manifest.layers

    def _require_sound(self, mac: str, files: set[str]) -> None:
        for manifest in self.holdings.of(mac):
            if manifest.failed and manifest.file in files:
                raise NotAdmitted(
                    LoginStatus.TARGET_ERROR,
                    manifest.failed,
                    f"see to the disk that it is on; to begin from the image, stop the block store and remove "
                    f"{self._writebacks.path(manifest)} and its manifest",
                )

    def _note_failure(self, manifest: Manifest, why: str) -> Awaitable[None]:
        """An overlay has failed for good: neither a later boot nor a restart may forget it."""
        self._journal.count("writebacks_failed")
        self._journal.log.error("write-back failed", client=manifest.client, boot_id=str(manifest.boot_id), cause=why)
        failed = manifest.model_copy(update={"failed": why})
        self.holdings.replace(manifest, failed)

        def note() -> None:
            try:
                self._writebacks.rewrite(failed)
            except OSError as error:
                self._journal.log.error("its manifest could not be written", file=failed.file, error=str(error))

        return asyncio.get_running_loop().run_in_executor(self._executor, note)

    def _supersede(self, mac: str, former_id: BootId | None, begun: list[Manifest]) -> None:
        """Note the new manifests, and tell what became of the former boot's write-backs."""
        going_on = {manifest.file for manifest in begun if not manifest.lasts}
        for manifest in self.holdings.note(mac, begun):
            # Of another entry of this boot nothing is told: it may be chosen again. Nor of what has come back.
            if manifest.boot_id == former_id != begun[0].boot_id and manifest.file not in going_on:
                self._journal.superseded(manifest, self._writebacks.usage(manifest), by=begun[0].boot_id)

    def _open(self, mac: str, parts: list[tuple[Manifest, Image, Overlay]]) -> Boot:
        luns = tuple(sorted(manifest.lun for manifest, _, _ in parts))
        disks = {}
        allowance = Allowance(self._limit, lambda level: self._press(mac, level))
        for manifest, image, overlay in parts:
            disk = ClientDisk(image, overlay, self._executor, durable=manifest.lasts, allowance=allowance)
            disk.on_failure = partial(self._note_failure, manifest)
            unit = LogicalUnit(TABLE, Identity(mac, manifest.lun), luns, disk)
            disks[manifest.lun] = Attached(manifest, disk, unit)
        absent = LogicalUnit(TABLE, Identity(mac, 0), luns)
        first = parts[0][0]
        boot = self._boots[mac] = Boot(mac, first.client, first.boot_id, disks, absent, first.entry)
        return boot

    def _press(self, mac: str, level: int) -> None:
        """A client nears its limit. Told of its fullest disk, and once the boot is open: opening counts, too."""

        def tell() -> None:
            boot = self._boots.get(mac)
            if boot is not None:
                fullest = max(boot.disks.values(), key=lambda attached: attached.disk.overlay.pages)
                self._journal.pressure(fullest.manifest, boot.written, self._limit, level)

        asyncio.get_running_loop().call_soon(tell)

    async def _images(self, stacks: list[tuple[LayerPlan, ...]]) -> list[Image]:
        images: list[Image] = []
        try:
            for layers in stacks:
                images.append(await self._library.open(layers))
        except DiskError as error:
            self._release(images)
            raise NotAdmitted(LoginStatus.TARGET_ERROR, error.problem, error.remedy) from error
        return images

    def _release(self, images: list[Image]) -> None:
        for image in images:
            self._library.close(image)

    # Ends

    async def _end(self, boot: Boot, why: str) -> None:
        """Fence a boot that another takes the place of, end its sessions and close its files."""
        for attached in boot.disks.values():
            await attached.disk.fence()
        await boot.evict_all(why)
        await self._close(boot)

    async def _close(self, boot: Boot) -> None:
        del self._boots[boot.mac]
        for attached in boot.disks.values():
            await attached.disk.fence()
            attached.disk.overlay.close()
            self._library.close(attached.disk.image)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)
