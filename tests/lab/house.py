"""Attachments over a folder, with logins that need no session: who gets which disk, and nothing of iSCSI."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar, cast

import pytest

from bootlink_blockstore.access import NotAdmitted
from bootlink_blockstore.boot import Boot
from bootlink_blockstore.login import Admission
from bootlink_blockstore.service import BlockStore
from bootlink_events import BootId, target_iqn
from bootlink_events.commands import Answer, Command, ExportState, ExportWriteback
from lab.blockstore import MAC, Plans, Told, digest, make_image, plan

A = TypeVar("A", bound=Answer)
HOUR = 3_600_000  # milliseconds


def boot_id(hours_ago: float = 1.0) -> BootId:
    return BootId.mint(now_ms=int(time.time() * 1000 - hours_ago * HOUR))


class Someone:
    """A seat, and who sits on it."""

    def __init__(self) -> None:
        self.evicted = ""

    async def evict(self, why: str) -> None:
        self.evicted = why


class House:
    """Attachments over a folder, with logins that need no session."""

    def __init__(self, store: BlockStore, plans: Plans, told: Told, folder: Path) -> None:
        self.store = store
        self.attachments = store.attachments
        self.images = folder / "images" / "demo"  # the image's folder in the image store
        self.plans = plans
        self.told = told
        self.folder = folder / "writebacks" / "52-54-00-00-00-01"

    async def login(
        self,
        initiator: str,
        *,
        isid: int = 1,
        seat: Someone | None = None,
        mac: str = MAC,
        tsih: int = 0,
        entry: str = "",
    ) -> Boot:
        admission = Admission(initiator, target_iqn(mac, entry), isid.to_bytes(6, "big"), tsih, False, False)
        return await self.attachments.attach(admission, seat or Someone(), datetime.now(UTC))

    async def refused(self, initiator: str, **more: Any) -> NotAdmitted:
        with pytest.raises(NotAdmitted) as caught:
            await self.login(initiator, **more)
        return caught.value

    async def ask(self, command: Command[A]) -> A:
        """What this block store answers. CommandError if it refuses."""
        return cast(A, await self.store.commands.handlers[type(command)](command))

    async def exported(self, command: ExportWriteback) -> ExportState:
        """Ask until the export is over."""
        async with asyncio.timeout(60):
            while (state := await self.ask(command)).state == "running":
                await asyncio.sleep(0.02)
        return state

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@contextlib.asynccontextmanager
async def house(folder: Path, plans: Plans | None = None) -> AsyncIterator[House]:
    """A block store over `folder`; without plans one client boots `base.img`, which must be unchanged in the end."""
    base = folder / "base.img"
    if not base.exists():
        make_image(base, 1 << 20)
    before = digest(base)
    (folder / "images" / "demo").mkdir(parents=True, exist_ok=True)
    plans = Plans({MAC: plan(base)}) if plans is None else plans
    told = Told()
    store = BlockStore(plans, told.journal(), folder, cache=8 << 20)
    await store.open()
    try:
        yield House(store, plans, told, folder)
    finally:
        await store.close()
    assert digest(base) == before, "the image's bytes have changed"


async def write(boot: Boot, data: bytes, lun: int = 0, at: int = 0) -> None:
    waiting = boot.disks[lun].disk.write(at, data)
    if waiting is not None:
        await waiting


async def read(boot: Boot, length: int = 512, lun: int = 0, at: int = 0) -> bytes:
    result = boot.disks[lun].disk.read(at, length)
    return b"".join(result if isinstance(result, list) else await result)
