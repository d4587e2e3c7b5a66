"""The block store's memory, as the kernel counts it: the cache's budget holds for the process, not for the books."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from bootlink_blockstore.cache import BLOCK
from bootlink_blockstore.readahead import JOB_BLOCKS, JOBS
from bootlink_blockstore.reading import RUN_BLOCKS
from bootlink_blockstore.service import READERS
from bootlink_events import BootId
from lab.blockstore import digest, make_image, plan
from lab.blockstore_process import Service
from lab.iscsi import Initiator

BUDGET = 32 << 20
SIZE = 4 * BUDGET
CLIENTS = 12
ROUNDS = 3
IDLE = 1_000
IDLE_LIMIT = 100 << 10  # bytes
# Beside the budget: what the reading threads hold (a buffer each, and as much again that was read and is not in the
# cache yet), what is being sent to each client, and 4 MiB for gaps in the heap and all else.
READING = 2 * (READERS * RUN_BLOCKS + JOBS * JOB_BLOCKS) * BLOCK
SENDING = CLIENTS * (128 << 10)
SLACK = READING + SENDING + (4 << 20)


async def sequential(pc: Initiator, start: int) -> None:
    for at in range(0, SIZE // 8, 128 << 10):
        await pc.read((start + at) % SIZE, 128 << 10)


async def scattered(pc: Initiator, choice: random.Random) -> None:
    for _ in range(150):
        size = choice.choice([512, 4096, 65536])
        await pc.read(choice.randrange((SIZE - size) // 512) * 512, size)


async def test_streaming_many_times_the_budget_grows_the_process_by_the_budget_and_no_more(tmp_path: Path) -> None:
    """In turns from the page cache (read on the event loop) and from the disk (read in threads): either heap use."""
    base = make_image(tmp_path / "base.img", SIZE)
    before = digest(base)
    macs = [f"52:54:00:00:02:{n:02x}" for n in range(CLIENTS)]
    service = Service(tmp_path, *(plan(base, mac=mac) for mac in macs), cache=str(BUDGET))
    service.start()
    try:
        pcs = [await service.login(BootId.mint(), mac) for mac in macs]
        start = service.resident
        grown = []
        for number in range(ROUNDS):
            cold = number % 2 == 1

            async def forget(cold: bool = cold) -> None:
                with base.open("rb") as file:
                    while cold:
                        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                        await asyncio.sleep(0.02)

            forgetting = asyncio.create_task(forget())
            async with asyncio.TaskGroup() as room:
                for n, pc in enumerate(pcs):
                    reading = scattered(pc, random.Random(n)) if n % 2 else sequential(pc, n * SIZE // CLIENTS)
                    room.create_task(reading)
            forgetting.cancel()
            grown.append(service.resident - start)
        for pc in pcs:
            await pc.close()
    finally:
        service.process.stop()
    mib = [f"{growth / 2**20:.1f}" for growth in grown]
    assert max(grown) <= BUDGET + SLACK, f"grew by {mib} MiB; budget {BUDGET >> 20}, slack {SLACK / 2**20:.1f}"
    assert max(grown) > BUDGET / 2, f"the cache was not filled: {mib} MiB"
    assert digest(base) == before


async def test_a_client_that_is_logged_in_and_idle_costs_less_than_100_kib(tmp_path: Path) -> None:
    """Of a room of 1,000: session, connection, write-back and all, after a read and a write of each."""
    base = make_image(tmp_path / "base.img", 1 << 20)
    before = digest(base)
    macs = [f"52:54:00:01:{n // 256:02x}:{n % 256:02x}" for n in range(IDLE)]
    service = Service(tmp_path, *(plan(base, mac=mac) for mac in macs))
    service.start()
    try:
        pcs: list[Initiator] = []
        for at in range(0, IDLE, 20):
            pcs += await asyncio.gather(*(service.login(BootId.mint(), mac) for mac in macs[at : at + 20]))
            if at == 0:
                start, counted = service.resident, len(pcs)  # what the first ones load is shared by all
        for pc in pcs:
            await pc.read(0, 65536)
            await pc.write(4096, bytes(4096))
        each = (service.resident - start) / (len(pcs) - counted)
        assert 2 << 10 < each < IDLE_LIMIT, f"{each / 1024:.1f} KiB each"
        print(f"{each / 1024:.1f} KiB each")
        for pc in pcs:
            await pc.close()
    finally:
        service.process.stop()
    assert digest(base) == before
