"""What the block store tells the world: events, spans, log lines and counters, in one place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from bootlink_blockstore.writeback import Manifest
from bootlink_events import (
    BootDiskAttached,
    BootDiskDetached,
    BootDiskUsed,
    BootFailed,
    BootId,
    EventData,
    WritebackDiscarded,
    WritebackKept,
    WritebackPressure,
    WritebackRestored,
)
from bootlink_events.models import DiskIo, InitiatorKind
from bootlink_runtime import Logger


class Spans(Protocol):
    def boot_span(
        self,
        boot_id: BootId,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        *,
        kind: Literal["server", "internal"] = "server",
        error: str | None = None,
        links: Sequence[BootId] = (),
    ) -> None: ...

    def linked_span(
        self,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        *,
        links: Sequence[BootId],
    ) -> None: ...


class Journal:
    """`emit`, `spans`, `log` and `count` are the chassis'; none of them blocks."""

    def __init__(
        self, emit: Callable[[EventData], None], spans: Spans, log: Logger, count: Callable[[str], None]
    ) -> None:
        self.log = log
        self.count = count
        self._emit = emit
        self._spans = spans

    def attached(
        self, manifest: Manifest, initiator: InitiatorKind, session: str, peer: str, started: datetime
    ) -> None:
        """A login got its disk."""
        event = BootDiskAttached(
            mac=manifest.mac,
            client=manifest.client,
            boot_id=manifest.boot_id,
            started=started,
            ended=datetime.now(UTC),
            initiator=initiator,
            lun=manifest.lun,
            image=manifest.image,
            version=manifest.version,
            policy=manifest.policy,
            session=session,
            peer=peer,
        )
        self._emit(event)
        attributes: dict[str, str | int] = {
            "network.transport": "tcp",
            "network.peer.address": peer.rpartition(":")[0],
            "bootlink.client.mac": manifest.mac,
            "bootlink.initiator": initiator,
            "bootlink.lun": manifest.lun,
            "bootlink.image.name": manifest.image,
            "bootlink.image.version": manifest.version,
            "bootlink.policy": manifest.policy,
        }
        self._spans.boot_span(event.boot_id, "iscsi.login", started, event.ended, attributes)
        self.log.info(
            "disk attached",
            client=manifest.client,
            boot_id=str(manifest.boot_id),
            initiator=initiator,
            lun=manifest.lun,
            image=f"{manifest.image}@{manifest.version}",
            policy=manifest.policy,
            session=session,
            peer=peer,
        )

    def used(self, event: BootDiskUsed) -> None:
        """A session fell silent for the first time."""
        self._emit(event)
        self._trace_use(event)

    def detached(self, event: BootDiskDetached, *, used: bool) -> None:
        """A session has ended; `used`: its first use was told before."""
        self._emit(event)
        if not used:
            self._trace_use(event)
        # A session may last for days after its boot: a trace of its own, or no boot's could be read.
        self._spans.linked_span("iscsi.session", event.started, event.ended, _did(event), links=[event.boot_id])
        self.log.info(
            "disk detached",
            client=event.client,
            boot_id=str(event.boot_id),
            lun=event.lun,
            session=event.session,
            reason=event.reason,
            reads=event.reads,
            bytes_read=event.bytes_read,
            writes=event.writes,
            bytes_written=event.bytes_written,
        )

    def failed(self, mac: str, client: str | None, boot_id: BootId, started: datetime, cause: str, remedy: str) -> None:
        """A login was refused."""
        ended = datetime.now(UTC)
        self._emit(
            BootFailed(
                mac=mac,
                client=client,
                boot_id=boot_id,
                started=started,
                ended=ended,
                stage="disk",
                cause=cause,
                remedy=remedy,
            )
        )
        attributes = {"bootlink.client.mac": mac, "bootlink.remedy": remedy, "error.type": "login_refused"}
        self._spans.boot_span(boot_id, "iscsi.login", started, ended, attributes, error=cause)
        self.log.warning("login refused", mac=mac, client=client, boot_id=str(boot_id), cause=cause, remedy=remedy)

    def superseded(self, manifest: Manifest, size: int, *, by: BootId) -> None:
        """A newer boot took over from the one that wrote this."""
        kind = WritebackDiscarded if manifest.policy == "discard" else WritebackKept
        self._emit(kind(**_writeback(manifest, size)))
        name = "writeback.discard" if manifest.policy == "discard" else "writeback.keep"
        self._trace_writeback(name, manifest, size, by)
        self.log.info(
            "write-back discarded" if manifest.policy == "discard" else "write-back kept",
            client=manifest.client,
            boot_id=str(manifest.boot_id),
            lun=manifest.lun,
            bytes=size,
        )

    def restored(self, manifest: Manifest, boot_id: BootId, size: int) -> None:
        """A discarded write-back has come back with this boot."""
        self._emit(WritebackRestored(**_writeback(manifest, size) | {"boot_id": boot_id}, written_by=manifest.boot_id))
        self._trace_writeback("writeback.restore", manifest, size, boot_id)
        self.log.info(
            "write-back restored",
            client=manifest.client,
            boot_id=str(boot_id),
            written_by=str(manifest.boot_id),
            lun=manifest.lun,
            bytes=size,
        )

    def _trace_use(self, event: DiskIo) -> None:
        """A session's first read, and what it read and wrote until it fell silent or ended."""
        attributes = _did(event)
        if event.first_read is not None:
            self._spans.boot_span(event.boot_id, "iscsi.first_read", event.started, event.first_read, attributes)
        if event.last_io is not None:
            began = event.first_read or event.started
            self._spans.boot_span(event.boot_id, "iscsi.reads_until_idle", began, event.last_io, attributes)

    def _trace_writeback(self, name: str, manifest: Manifest, size: int, boot_id: BootId) -> None:
        """What a boot's begin meant for what a former one wrote."""
        now = datetime.now(UTC)
        attributes: dict[str, str | int] = {
            "bootlink.client.mac": manifest.mac,
            "bootlink.lun": manifest.lun,
            "bootlink.policy": manifest.policy,
            "file.name": manifest.file,
            "file.size": size,
        }
        self._spans.boot_span(boot_id, name, now, now, attributes, kind="internal", links=[manifest.boot_id])

    def dropped(self, manifest: Manifest, size: int) -> None:
        """A write-back was thrown away on request."""
        self.log.info(
            "write-back dropped",
            client=manifest.client,
            boot_id=str(manifest.boot_id),
            lun=manifest.lun,
            policy=manifest.policy,
            bytes=size,
        )

    def unsealed(self, path: str) -> None:
        """A layer of the image store could be written to."""
        self.count("layers_unsealed")
        self.log.warning(
            "layer was writable",
            file=path,
            remedy="see who changed its mode; bootlink image verify tells whether its bytes are still the same",
        )

    def pressure(self, manifest: Manifest, size: int, limit: int, level: int) -> None:
        """A client has written so many percent of what it may write; at 100 its writes are refused."""
        self.count("writeback_pressure")
        self._emit(WritebackPressure(**_writeback(manifest, size), limit=limit, percent=level))
        self.log.warning(
            "write-back nears its limit" if level < 100 else "write-back is full",
            client=manifest.client,
            boot_id=str(manifest.boot_id),
            bytes=size,
            limit=limit,
            percent=level,
            remedy="restart the PC where its policy is discard, or raise BOOTLINK_BLOCKSTORE_WRITEBACK_LIMIT",
        )

    def space_low(self, manifest: Manifest, size: int, free: int, reserve: int) -> None:
        """The file system of the write-backs is nearly full; this is the largest of those that are in use."""
        self.count("space_low")
        self._emit(WritebackPressure(**_writeback(manifest, size), limit=0, free=free))
        self.log.warning(
            "little space for write-backs",
            free=free,
            reserve=reserve,
            largest=manifest.client,
            bytes=size,
            remedy="free space there; discarded write-backs are reclaimed at once until then",
        )


def _did(event: DiskIo) -> dict[str, str | int]:
    """What a session did, as attributes."""
    return {
        "network.transport": "tcp",
        "bootlink.client.mac": event.mac,
        "bootlink.initiator": event.initiator,
        "bootlink.lun": event.lun,
        "bootlink.reads": event.reads,
        "bootlink.bytes_read": event.bytes_read,
        "bootlink.writes": event.writes,
        "bootlink.bytes_written": event.bytes_written,
    }


def _writeback(manifest: Manifest, size: int) -> dict[str, Any]:
    """What every event of a write-back says of it; `size` in bytes on disk."""
    return {
        "mac": manifest.mac,
        "client": manifest.client,
        "boot_id": manifest.boot_id,
        "lun": manifest.lun,
        "bytes": size,
    }
