"""PCs that run while their image is published, rolled back, merged and removed: over real sessions, all the way."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bootlink_disks import create_vhd_differencing, create_vhd_dynamic
from bootlink_events import BootId
from lab.blockstore import digest, make_image
from lab.disks import MIB, apply_changes, changes_of
from lab.iscsi import Initiator
from lab.nats import NatsServer
from lab.site import Site, blockstore_on, site_on

MAC = "52:54:00:12:34:56"
SIZE = 8 * MIB
PIECE = 128 << 10  # bytes read at once
OWN = 5 * MIB + 4096  # where the PC writes


@pytest.fixture
async def site(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with site_on(nats.url, database, tmp_path / "data") as running:
        yield running


async def two_versions(site: Site, folder: Path) -> tuple[bytes, bytes]:
    """The image `gold`: version 2 is a difference to version 1, which is published. What they show."""
    raw = make_image(folder / "gold.img", SIZE)
    first = bytearray(raw.read_bytes())
    base = create_vhd_dynamic(folder / "gold-1.vhd", raw)
    changes = changes_of(random.Random(2), SIZE, 30)
    child = create_vhd_differencing(folder / "gold-2.vhd", base, changes)
    second = bytearray(first)
    apply_changes(second, changes)
    await site.registry.add_image("gold", base.path)
    body = {"path": str(child.path), "parent": {"image": "gold", "version": 1}}
    assert (await site.registry.http.post("/v1/images/gold/versions", json=body)).status_code == 201
    await site.registry.add_client(MAC, "pc-07")
    return bytes(first), bytes(second)


async def publish(site: Site, version: int) -> None:
    answer = await site.registry.http.put("/v1/images/gold/channels/production", json={"version": version})
    assert answer.status_code == 200, answer.text


async def disk_of(pc: Initiator) -> bytes:
    """All that the PC sees."""
    return b"".join([await pc.read(offset, PIECE) for offset in range(0, SIZE, PIECE)])


def with_own(shown: bytes, data: bytes) -> bytes:
    return shown[:OWN] + data + shown[OWN + len(data) :]


async def test_a_pc_that_runs_stays_on_what_it_booted_and_its_next_boot_gets_what_was_published(
    nats: NatsServer, site: Site, tmp_path: Path
) -> None:
    first, second = await two_versions(site, tmp_path)
    files = [digest(tmp_path / name) for name in ("gold-1.vhd", "gold-2.vhd")]
    await site.registry.link("default", "", "gold")
    await site.planned("pc-07", 1)
    boot, mine = BootId.mint(), random.Random(7).randbytes(8192)
    pc = await site.pc(MAC, boot)
    await pc.write(OWN, mine)
    before = await disk_of(pc)
    assert before == with_own(first, mine)

    await publish(site, 2)
    await site.planned("pc-07", 2)
    assert await disk_of(pc) == before  # the session that was there
    again = await site.pc(MAC, boot)  # and one more of the same boot, as after a network fault
    assert await disk_of(again) == before
    await pc.close()
    await again.write(OWN, mine[::-1])

    await site.registry.http.post("/v1/images/gold/channels/production/rollback", json={})
    await site.planned("pc-07", 1)
    await publish(site, 2)
    await site.planned("pc-07", 2)
    assert await again.read(OWN, len(mine)) == mine[::-1]
    await again.close()

    next_boot = await site.pc(MAC, BootId.mint())
    assert await disk_of(next_boot) == second
    await next_boot.close()
    assert [digest(tmp_path / name) for name in ("gold-1.vhd", "gold-2.vhd")] == files


async def test_a_block_store_that_is_restarted_after_a_publish_gives_a_running_pc_what_it_booted(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async with site_on(nats.url, database, tmp_path / "data") as site:
        first, _ = await two_versions(site, tmp_path)
        await site.registry.link("default", "", "gold")
        await site.planned("pc-07", 1)
        boot, mine = BootId.mint(), b"mine" * 1024
        pc = await site.pc(MAC, boot)
        await pc.write(OWN, mine)
        await publish(site, 2)
        await site.planned("pc-07", 2)
        await pc.close()
    async with blockstore_on(nats.url, tmp_path / "data") as address:
        pc = await Site(site.registry, *address).pc(MAC, boot)
        assert await disk_of(pc) == with_own(first, mine)
        await pc.close()


async def test_a_merge_stops_nobody_and_a_kept_write_back_survives_it(site: Site, tmp_path: Path) -> None:
    _, second = await two_versions(site, tmp_path)
    await publish(site, 2)
    await site.registry.link("client", "pc-07", "gold", policy="keep")
    await site.planned("pc-07", 2, layers=2)
    boot, mine = BootId.mint(), random.Random(8).randbytes(8192)
    pc = await site.pc(MAC, boot)
    await pc.write(OWN, mine, fua=True)

    reads = 0

    async def works() -> None:
        nonlocal reads
        while True:
            offset = reads * PIECE % SIZE
            assert await pc.read(offset, PIECE) == with_own(second, mine)[offset : offset + PIECE]
            reads += 1

    working = asyncio.create_task(works())
    result = await site.registry.result("/v1/images/gold/merge")
    assert (result["layers_before"], result["layers_after"]) == (2, 1)
    await site.planned("pc-07", 2, layers=1)
    read_by_then = reads
    while reads < read_by_then + SIZE // PIECE:  # the whole disk once more
        assert not working.done(), working.exception()
        await asyncio.sleep(0.01)
    working.cancel()
    await asyncio.wait([working])
    await pc.close()

    pc = await site.pc(MAC, BootId.mint())
    assert await disk_of(pc) == with_own(second, mine)
    await pc.write(OWN + len(mine), mine, fua=True)
    await pc.close()
    pc = await site.pc(MAC, BootId.mint())
    assert await disk_of(pc) == with_own(second, mine + mine)
    await pc.close()


async def test_an_image_that_is_removed_under_a_pc_that_runs_is_there_until_its_next_boot(
    nats: NatsServer, site: Site, tmp_path: Path
) -> None:
    source = make_image(tmp_path / "source.img", SIZE)
    await site.registry.result("/v1/imports", name="gold", source=str(source))
    await site.registry.add_client(MAC, "pc-07")
    await site.registry.link("client", "pc-07", "gold")
    await site.planned("pc-07", 1)
    pc = await site.pc(MAC, BootId.mint())
    assert (await site.registry.http.delete("/v1/links/client/pc-07")).status_code == 204
    assert (await site.registry.http.delete("/v1/images/gold")).status_code == 204
    assert await disk_of(pc) == source.read_bytes()
    await pc.close()
