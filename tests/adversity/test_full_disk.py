"""D5: a file system that is really full costs a write, and nothing else."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bootlink_events import BootId
from lab.blockstore import MAC, Lab, digest, identity, make_image, plan, serving
from lab.filesystem import Kind, mount, small, unmount
from lab.iscsi import CheckConditionSeen, Initiator

SIZE = 48 << 20  # of the image: more than the file system holds
ROOM = 24 << 20
OTHER = "52:54:00:00:00:02"
SPACE_ALLOCATION_FAILED = (7, 0x2707)


async def login(running: Lab, boot_id: BootId, mac: str = MAC) -> Initiator:
    return await Initiator.logged_in(
        running.host, running.port, name=identity(boot_id, mac), target=running.plans[mac].target
    )


async def whole(client: Initiator) -> bytes:
    return b"".join([await client.read(offset, 1 << 20) for offset in range(0, SIZE, 1 << 20)])


async def fill(client: Initiator, seed: int, held: bytearray) -> set[int]:
    """Write until the file system is full, and on: large and small. The sectors of the writes that failed."""
    chance, uncertain, failures = random.Random(seed), set[int](), 0
    while failures < 40:
        sectors = chance.choice((1, 8, 9, 128, 700))
        lba = chance.randrange(SIZE // 512 - sectors)
        data = chance.randbytes(512) * sectors
        try:
            await client.write(lba * 512, data)
        except CheckConditionSeen as seen:
            if (seen.key, seen.code) != SPACE_ALLOCATION_FAILED:
                raise
            failures += 1
            uncertain |= set(range(lba, lba + sectors))
        else:
            held[lba * 512 : (lba + sectors) * 512] = data
            uncertain -= set(range(lba, lba + sectors))
    return uncertain


def check(now: bytes, held: bytes | bytearray, uncertain: set[int]) -> None:
    for sector in range(SIZE // 512):
        place = slice(sector * 512, sector * 512 + 512)
        assert now[place] == held[place] or sector in uncertain, f"sector {sector}"


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
async def test_a_full_disk_costs_the_write_and_neither_another_client_nor_what_was_written(
    kind: Kind, tmp_path: Path
) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    before, image = digest(base), base.read_bytes()
    plans = (plan(base), plan(base, mac=OTHER, policy="keep"))
    full_id, other_id = BootId.mint(), BootId.mint()
    mine = b"o" * (1 << 20)
    with small(kind, tmp_path, ROOM) as folder:
        async with serving(folder, *plans) as running:
            full, other = await login(running, full_id), await login(running, other_id, OTHER)
            await other.write(0, bytes(1 << 20), fua=True)
            held = bytearray(image)
            uncertain = await fill(full, 1, held)
            assert await other.read(2 << 20, 1 << 20) == image[2 << 20 : 3 << 20]
            await other.write(0, mine, fua=True)  # into pages that are there: they have their place
            seen = await whole(full)
            check(seen, held, uncertain)
            await full.close()
            await other.close()
        if kind == "ext4":
            unmount(folder)  # what is only promised to the page cache does not come back from this
            mount(kind, tmp_path / "small.img", folder, ROOM)
        async with serving(folder, *plans) as running:
            full, other = await login(running, full_id), await login(running, other_id, OTHER)
            assert await whole(full) == seen
            assert await whole(other) == mine + image[1 << 20 :]
            # The next boot of the one that filled it starts from the image, and there is room again once the old
            # write-back was reclaimed.
            await full.close()
            fresh = await login(running, BootId.mint(after=full_id))
            assert await whole(fresh) == image
            await running.reclaim()
            await fresh.write(0, mine * 4)
            assert await fresh.read(0, 4 << 20) == mine * 4
            await fresh.close()
            await other.close()
    assert digest(base) == before
