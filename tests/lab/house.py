"""Attachments over a folder, with logins that need no session: who gets which disk, and nothing of iSCSI."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bootlink_blockstore.access import NotAdmitted
from bootlink_blockstore.attach import Attachments
from bootlink_blockstore.boot import Boot
from bootlink_blockstore.login import Admission
from bootlink_blockstore.service import BlockStore
from bootlink_events import BootId, target_iqn
from lab.blockstore import MAC, Plans, Told, digest, make_image, plan

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

    def __init__(self, attachments: Attachments, plans: Plans, told: Told, folder: Path) -> None:
        self.attachments = attachments
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

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@contextlib.asynccontextmanager
async def house(folder: Path, plans: Plans | None = None) -> AsyncIterator[House]:
    base = folder / "base.img"
    if not base.exists():
        make_image(base, 1 << 20)
    before = digest(base)
    plans = Plans({MAC: plan(base)}) if plans is None else plans
    told = Told()
    store = BlockStore(plans, told.journal(), folder, cache=8 << 20)
    await store.open()
    try:
        yield House(store.attachments, plans, told, folder)
    finally:
        await store.close()
    assert digest(base) == before, "the image's bytes have changed"


async def write(boot: Boot, data: bytes, lun: int = 0) -> None:
    waiting = boot.disks[lun].disk.write(0, data)
    if waiting is not None:
        await waiting


async def read(boot: Boot, length: int = 512, lun: int = 0) -> bytes:
    result = boot.disks[lun].disk.read(0, length)
    return b"".join(result if isinstance(result, list) else await result)
