"""What others may ask of this block store: see `bootlink_events.commands`, which says what each command means.

Whatever changes a client's write-backs is done under its lock, as logins are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.exports import Exports
from bootlink_blockstore.holdings import Holdings
from bootlink_blockstore.journal import Journal
from bootlink_blockstore.library import require_unchanged
from bootlink_blockstore.overlay import span
from bootlink_blockstore.writeback import Manifest
from bootlink_disks import DiskError
from bootlink_events import LayerPlan
from bootlink_events.commands import (
    Answer,
    CancelExport,
    ClientDisconnected,
    DisconnectClient,
    DropWriteback,
    ExportState,
    ExportWriteback,
    Lasting,
    LastingClients,
    ListLasting,
    ListWritebacks,
    RestoreWriteback,
    WritebackDropped,
    WritebackItem,
    WritebackList,
    WritebackReturning,
    WritebackState,
)
from bootlink_runtime import CommandError, rpc


class Commands:
    """The handlers of all commands."""

    def __init__(self, attachments: Attachments, holdings: Holdings, exports: Exports, journal: Journal) -> None:
        self._attachments = attachments
        self._holdings = holdings
        self._exports = exports
        self._journal = journal

    @property
    def handlers(self) -> rpc.Handlers:
        return {
            ListWritebacks: self.listed,
            ListLasting: self.lasting,
            ExportWriteback: self.export,
            CancelExport: self.cancel,
            DropWriteback: self.drop,
            RestoreWriteback: self.restore,
            DisconnectClient: self.disconnect,
        }

    async def listed(self, command: ListWritebacks) -> WritebackList:
        manifests = sorted(self._holdings.of(command.mac), key=lambda m: (-m.boot_id.int, m.lun, m.file))
        return WritebackList(items=await self._items(manifests))

    async def lasting(self, command: ListLasting) -> LastingClients:
        found = self._holdings.lasting()
        macs = sorted(mac for mac in found if mac > command.after)
        page = macs[: command.limit]
        more = page[-1] if len(macs) > len(page) else None
        return LastingClients(clients=tuple(Lasting(mac=mac, boot_id=found[mac]) for mac in page), next=more)

    async def export(self, command: ExportWriteback) -> ExportState:
        known = self._exports.known(command.job)
        if known is None:
            known = await self._exports.begin(command, self._chosen)
        elif known.command.target != command.target:
            raise CommandError(f"job {command.job} writes {known.command.target}", "give each export a job of its own")
        return known.state

    async def cancel(self, command: CancelExport) -> Answer:
        await self._exports.cancel(command.job)
        return Answer()

    async def drop(self, command: DropWriteback) -> WritebackDropped:
        async with self._attachments.lock(command.mac):
            manifests = [
                manifest
                for manifest in self._holdings.of(command.mac)
                if manifest.lun == command.lun
                and (manifest.lasts if command.boot_id is None else manifest.boot_id == command.boot_id)
                and command.content in (None, manifest.bound_to)
            ]
            left = [manifest for manifest in manifests if await self._holds_more(manifest, command)]
            manifests = [manifest for manifest in manifests if manifest not in left]
            self._require_not_read(manifests)
            boot = self._attachments.boot_of(command.mac)
            if boot is not None and {m.file for m in manifests} & {a.manifest.file for a in boot.disks.values()}:
                if boot.seats:
                    raise CommandError(f"{boot.client} has the disk open", "shut the PC down, and repeat the command")
                await self._attachments.close_boot(boot)
            items = await self._items(manifests)
            await self._holdings.drop(command.mac, manifests)
            for manifest, item in zip(manifests, items, strict=True):
                self._journal.dropped(manifest, item.bytes)
            return WritebackDropped(items=items, left=await self._items(left))

    async def restore(self, command: RestoreWriteback) -> WritebackReturning:
        async with self._attachments.lock(command.mac):
            stacks = {stack.content: stack.layers for stack in command.stacks}
            manifests = self._to_return(command)
            for manifest in manifests:  # or they could be reclaimed until the ledger says that they come back
                self._holdings.pin(manifest)
            try:
                now = [self._upon(manifest, stacks.get(manifest.bound_to)) for manifest in manifests]
                await asyncio.to_thread(self._require_whole, now)
                await self._holdings.bring_back(command.mac, now)
            except DiskError as error:
                raise CommandError(f"it cannot come back: {error.problem}", error.remedy) from error
            finally:
                for manifest in manifests:
                    self._holdings.unpin(manifest)
            self._journal.log.info(
                "write-back returns", client=manifests[0].client, written_by=str(manifests[0].boot_id)
            )
            return WritebackReturning(items=await self._items(now))

    async def disconnect(self, command: DisconnectClient) -> ClientDisconnected:
        sessions = await self._attachments.disconnect(command.mac, "an administrator ended it")
        return ClientDisconnected(sessions=sessions)

    # What they are about

    def _chosen(self, command: ExportWriteback) -> Manifest:
        found = [
            manifest
            for manifest in self._holdings.of(command.mac)
            if manifest.lun == command.lun
            and command.boot_id in (None, manifest.boot_id)
            and command.content in (None, manifest.bound_to)
        ]
        if not found:
            boot = f" of boot {command.boot_id}" if command.boot_id else ""
            upon = f" upon {command.content}" if command.content else ""
            raise CommandError(
                f"nothing that client {command.mac} wrote to disk {command.lun}{boot}{upon} is here",
                "see what is: it may have been reclaimed, or lie on another block store",
            )
        return max(found, key=lambda manifest: (manifest.boot_id, manifest.created))

    def _to_return(self, command: RestoreWriteback) -> list[Manifest]:
        """The discarded write-backs of the boot that is asked back."""
        holdings, mac, boot_id = self._holdings, command.mac, command.boot_id
        if boot_id is None:
            usable = [boot.boot_id for boot in holdings.discarded(mac) if boot.usable]
            if not usable:
                raise CommandError(
                    f"nothing that client {mac} wrote before its last restart is here any more",
                    "more is kept with BOOTLINK_BLOCKSTORE_UNDO_COUNT, _UNDO_AGE and _UNDO_SPACE",
                )
            boot_id = usable[0]
        manifests = [manifest for manifest in holdings.of_boot(mac, boot_id) if not manifest.lasts]
        if not manifests:
            raise CommandError(
                f"nothing that client {mac} wrote in boot {boot_id} is here, or it is kept anyway",
                "see what is, and name one of those that are discarded",
            )
        for manifest in manifests:
            if manifest.failed or holdings.writebacks.outlived(manifest):
                raise CommandError(
                    manifest.failed or f"the machine was restarted since boot {boot_id}: writes of it may be lost",
                    "none: it cannot be brought back",
                )
        return manifests

    async def _holds_more(self, manifest: Manifest, command: DropWriteback) -> bool:
        """Whether something was written to it that is not in the layer that was made of it."""
        if command.exported_boot is None:
            return False
        if command.exported_written is None:
            return manifest.boot_id > command.exported_boot
        written = await asyncio.to_thread(self._holdings.writebacks.written, manifest)
        return written != command.exported_written

    @staticmethod
    def _upon(manifest: Manifest, layers: tuple[LayerPlan, ...] | None) -> Manifest:
        """It, read from these layers, but of the contents that it was: one of before knows those by its top layer."""
        if layers is None:
            return manifest
        return manifest.model_copy(update={"content": manifest.bound_to, "layers": layers})

    def _require_not_read(self, manifests: Iterable[Manifest]) -> None:
        for manifest in manifests:
            if self._holdings.is_pinned(manifest):
                raise CommandError(
                    f"a layer is being made of what {manifest.client} wrote in boot {manifest.boot_id}",
                    "wait until that is done, or cancel that job",
                )

    def _require_whole(self, manifests: list[Manifest]) -> None:
        """DiskError unless these and all layers that they were written on are there as they were. Blocks."""
        for manifest in manifests:
            path = self._holdings.writebacks.path(manifest)
            if not path.exists() or path.stat().st_size != span(manifest.size):
                raise DiskError(f"{path} gave its space back", "none: it is gone")
            for layer in manifest.layers:
                require_unchanged(layer)

    async def _items(self, manifests: Iterable[Manifest]) -> tuple[WritebackItem, ...]:
        manifests = list(manifests)
        held = self._holdings.writebacks
        known = await asyncio.to_thread(lambda: [(held.usage(m), held.written(m)) for m in manifests])
        return tuple(self._item(manifest, *each) for manifest, each in zip(manifests, known, strict=True))

    def _item(self, manifest: Manifest, size: int, written: int) -> WritebackItem:
        return WritebackItem(
            mac=manifest.mac,
            client=manifest.client,
            boot_id=manifest.boot_id,
            lun=manifest.lun,
            image=manifest.image,
            version=manifest.version,
            content=manifest.bound_to,
            policy=manifest.policy,
            state=self._state(manifest),
            bytes=size,
            since=manifest.created,
            reason=manifest.failed,
            returning=manifest in self._holdings.returning(manifest.mac),
            written=written,
        )

    def _state(self, manifest: Manifest) -> WritebackState:
        boot = self._attachments.boot_of(manifest.mac)
        opened = boot is not None and any(a.manifest.file == manifest.file for a in boot.disks.values())
        if manifest.failed:
            return "failed"
        if opened and boot is not None and boot.seats:
            return "in_use"
        if not manifest.lasts and self._holdings.writebacks.outlived(manifest):
            return "outlived"
        if self._holdings.current(manifest):
            return "idle"
        return "kept" if manifest.lasts else "discarded"
