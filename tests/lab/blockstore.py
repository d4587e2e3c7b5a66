"""A block store in the test's own event loop, without NATS: plans from a dictionary, events into a list."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from bootlink_blockstore.access import Access
from bootlink_blockstore.journal import Journal
from bootlink_blockstore.reclaim import NOTHING, due
from bootlink_blockstore.service import BlockStore
from bootlink_blockstore.session import Session
from bootlink_disks import probe
from bootlink_events import BootId, BootPlan, Chap, EventData, Refusal, initiator_iqn, target_iqn
from bootlink_events.plans import DiskPlan, LayerPlan
from bootlink_runtime import logger

MAC = "52:54:00:00:00:01"
CACHE = 64 << 20
Policy = Literal["discard", "keep", "super"]


def make_image(path: Path, size: int = 8 << 20, *, seed: int = 1) -> Path:
    """A raw disk of reproducible noise with a boot signature. No two pages are alike, so a misplaced one shows."""
    block = bytearray()
    counter = 0
    while len(block) < size:
        block += hashlib.shake_128(f"{seed}/{counter}".encode()).digest(min(1 << 20, size))
        counter += 1
    del block[size:]
    block[510:512] = b"\x55\xaa"
    path.write_bytes(block)
    return path


def digest(path: Path) -> str:
    """What proves that a layer's bytes are unchanged."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def layer_plan(path: Path) -> LayerPlan:
    info = probe(path)
    return LayerPlan(
        id=f"layer-{path.name}",
        path=str(path),
        format=info.format,
        virtual_size=info.virtual_size,
        file_size=info.file_size,
        mtime_ns=info.mtime_ns,
    )


def plan(
    *images: Path,
    mac: str = MAC,
    policy: Policy = "discard",
    refusal: Refusal | None = None,
    version: int = 1,
    chap: Chap = "off",
    content: str = "",
) -> BootPlan:
    """A plan with one disk per image, as logical units 0, 1 and so on."""
    disks = tuple(
        DiskPlan(
            lun=lun,
            image=path.stem,
            version=version,
            channel="production",
            content=content and f"{content}.{lun}",
            layers=(layer_plan(path),),
            policy=policy,
        )
        for lun, path in enumerate(images)
    )
    return BootPlan(
        mac=mac,
        client="pc-001",
        revision=1,
        target=target_iqn(mac),
        portals=(),
        disks=disks,
        chap=chap,
        refusal=refusal,
    )


class Plans(dict[str, BootPlan]):
    """Plans by MAC address, as the plan book gives them."""


@dataclass
class Told:
    """What a journal was told."""

    events: list[EventData] = field(default_factory=list)
    spans: list[tuple[str, BootId, str | None]] = field(default_factory=list)
    linked: list[tuple[str, BootId]] = field(default_factory=list)
    counters: Counter[str] = field(default_factory=Counter)

    def of(self, kind: type[EventData]) -> list[EventData]:
        return [event for event in self.events if isinstance(event, kind)]

    def boot_span(
        self,
        boot_id: BootId,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        *,
        kind: str = "server",
        error: str | None = None,
        links: Sequence[BootId] = (),
    ) -> None:
        self.spans.append((name, boot_id, error))
        self.linked += [(name, link) for link in links]

    def linked_span(
        self,
        name: str,
        started: datetime,
        ended: datetime,
        attributes: Mapping[str, str | int | float | bool] | None = None,
        *,
        links: Sequence[BootId],
    ) -> None:
        (boot_id,) = links
        self.linked.append((name, boot_id))

    def count(self, name: str, n: int = 1) -> None:
        self.counters[name] += n

    def journal(self) -> Journal:
        return Journal(self.events.append, self, logger("blockstore"), self.count)


@dataclass
class Lab:
    """A block store that serves."""

    store: BlockStore
    plans: Plans
    told: Told
    host: str
    port: int

    async def reclaim(self) -> None:
        """Give the space of all that was discarded back."""
        holdings = self.store.holdings
        for manifest in due([holdings.reclaimable(mac) for mac in holdings.clients], NOTHING, float("inf")):
            await holdings.forget(manifest)

    def url(self, mac: str = MAC, lun: int = 0) -> str:
        """For libiscsi's tools and QEMU."""
        return f"iscsi://{self.host}:{self.port}/{target_iqn(mac)}/{lun}"


@contextlib.asynccontextmanager
async def serving(
    folder: Path,
    *plans: BootPlan,
    cache: int = CACHE,
    access: Access | None = None,
    limit: int = 0,
    node: str = "",
) -> AsyncIterator[Lab]:
    """A block store over `folder` for the length of the block; `node` is what plans call it, where they name one."""
    held = Plans({p.mac: p for p in plans})
    told = Told()
    store = BlockStore(held, told.journal(), folder, cache=cache, access=access, limit=limit, node=node)
    await store.open()
    host, port = await store.portal.serve("127.0.0.1", 0)
    try:
        yield Lab(store, held, told, host, port)
    finally:
        await store.close()


def identity(boot_id: BootId, mac: str = MAC) -> str:
    """The initiator name of a client in a boot."""
    return initiator_iqn(mac, boot_id)


def note_sessions(monkeypatch: pytest.MonkeyPatch) -> list[Session]:
    """The sessions that are admitted from now on, in their order."""
    admitted: list[Session] = []
    real = Session.admit

    def noted(self: Session, *units: Any) -> None:
        real(self, *units)
        admitted.append(self)

    monkeypatch.setattr(Session, "admit", noted)
    return admitted
