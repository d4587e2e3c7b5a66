"""K6 and DESIGN section 3: of overlapping sessions only those of the newest boot write, and no late write lands."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bootlink_blockstore.image import Buffer
from bootlink_blockstore.overlay import Overlay
from bootlink_events import BootId
from bootlink_wire.iscsi_codes import LoginStatus
from lab.blockstore import Lab, Policy, digest, identity, make_image, plan, serving
from lab.iscsi import IPXE_ISID, IPXE_KEYS, CheckConditionSeen, Initiator, LoginFailed, write_10

SIZE = 8 << 20
LARGE = 256 << 10  # goes through the queue, in a thread


def boots(count: int) -> list[BootId]:
    """In the order of their age, oldest first."""
    began = int(time.time() * 1000) - 3_600_000
    return [BootId.mint(now_ms=began + number) for number in range(count)]


async def login(running: Lab, boot_id: BootId, **more: Any) -> Initiator:
    return await Initiator.logged_in(running.host, running.port, name=identity(boot_id), **more)


async def refused(running: Lab, boot_id: BootId) -> int:
    with pytest.raises(LoginFailed) as caught:
        await login(running, boot_id)
    return caught.value.status


class Gate:
    """Holds writes of LARGE in their thread until it is opened."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()
        real = Overlay.write

        def write(overlay: Overlay, offset: int, buffers: Sequence[Buffer]) -> None:
            if sum(map(len, buffers)) >= LARGE and not self.open.is_set():
                self.reached.set()
                assert self.open.wait(30)
            real(overlay, offset, buffers)

        patch.setattr(Overlay, "write", write)


@pytest.mark.parametrize("policy", ["discard", "keep"])
async def test_of_three_boots_only_the_newest_writes_and_no_late_write_lands(
    policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    before, image = digest(base), base.read_bytes()
    first, second, third = boots(3)
    gate = Gate(monkeypatch)
    async with serving(tmp_path, plan(base, policy=policy)) as running:
        firmware = await login(running, first, isid=IPXE_ISID, keys=IPXE_KEYS)
        system = await login(running, first)
        await system.write(4 << 20, b"kept" * 128)
        # One write is under way in its thread, two more wait behind it, each of another session.
        under_way = asyncio.create_task(system.write(0, b"a" * LARGE))
        await asyncio.to_thread(gate.reached.wait)
        waiting = asyncio.create_task(firmware.write(1 << 20, b"b" * 4096))
        small = system.command(write_10((2 << 20) // 512, 8), expected=4096, write=True, data=b"c" * 4096)
        system.send(small)
        await asyncio.sleep(0.1)
        newer = asyncio.create_task(login(running, second))
        await asyncio.sleep(0.1)
        assert not newer.done(), "the newer boot is not admitted while a write of the older one may land"
        gate.open.set()
        current = await newer
        with contextlib.suppress(ConnectionError):
            await under_way  # it landed before the fence, so it may be told or not
        with pytest.raises((ConnectionError, CheckConditionSeen)):
            await waiting
        assert await system.gone()
        kept = policy == "keep"
        assert await current.read(0, LARGE) == (b"a" * LARGE if kept else image[:LARGE])
        assert await current.read(4 << 20, 512) == (b"kept" * 128 if kept else image[4 << 20 : (4 << 20) + 512])
        for offset in (1 << 20, 2 << 20):
            assert await current.read(offset, 4096) == image[offset : offset + 4096], "it came after the fence"
        assert await refused(running, first) == LoginStatus.AUTHORIZATION_FAILURE
        # The next one takes over in the same way; a second session of it shares its disk.
        await current.write(1 << 20, b"d" * 4096)
        newest = await login(running, third)
        assert await current.gone()
        beside = await login(running, third, isid=IPXE_ISID, keys=IPXE_KEYS)
        await newest.write(2 << 20, b"e" * 4096)
        assert await beside.read(2 << 20, 4096) == b"e" * 4096
        assert await beside.read(1 << 20, 4096) == (b"d" * 4096 if kept else image[1 << 20 : (1 << 20) + 4096])
        for older in (first, second):
            assert await refused(running, older) == LoginStatus.AUTHORIZATION_FAILURE
        assert await newest.read(2 << 20, 4096) == b"e" * 4096, "refusing them disturbs nobody"
        for session in (firmware, system, current, newest, beside):
            await session.close()
    assert digest(base) == before


async def test_of_newer_boots_that_log_in_at_once_the_newest_stays(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    async with serving(tmp_path, plan(base)) as running:
        ids = boots(6)
        running_one = await login(running, ids[0])
        ends = await asyncio.gather(*(login(running, boot_id) for boot_id in ids[1:]), return_exceptions=True)
        newest = ends[-1]
        assert isinstance(newest, Initiator)
        await newest.write(0, b"n" * 512)
        for end in ends[:-1]:
            # Refused, or admitted for a moment and then fenced.
            if isinstance(end, Initiator):
                assert await end.gone()
                await end.close()
            else:
                assert isinstance(end, (LoginFailed, ConnectionError))
        (boot,) = running.store.attachments.boots
        assert boot.boot_id == ids[-1]
        assert await newest.read(0, 512) == b"n" * 512
        await newest.close()
        await running_one.close()
