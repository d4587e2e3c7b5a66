"""64 PCs that boot at once, over iSCSI: the firmware's part of one recorded boot, and a disk that counts its reads."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bootlink_blockstore.cache import BLOCK
from bootlink_events import BootId, target_iqn
from lab import boot_reads
from lab.blockstore import digest, identity, make_image, plan, serving
from lab.iscsi import IPXE_KEYS, Initiator
from lab.slow_disk import SlowDisk

PCS = 64
READS = 40  # of each PC: the loader, GRUB, and the beginning of the kernel


async def test_64_sessions_on_a_cold_cache_read_each_block_from_the_disk_once_and_every_byte_is_right(
    tmp_path: Path,
) -> None:
    boot = boot_reads.load()
    reads = boot.reads[:READS]
    base = make_image(tmp_path / "base.img", boot.size // 8)
    assert max(read.offset + read.length for read in reads) <= base.stat().st_size
    before, image = digest(base), base.read_bytes()
    macs = [f"52:54:00:00:03:{n:02x}" for n in range(PCS)]
    async with serving(tmp_path, *(plan(base, mac=mac) for mac in macs)) as lab:
        # One after the other, as all of them have one address here.
        pcs = [
            await Initiator.logged_in(
                lab.host, lab.port, name=identity(BootId.mint(), mac), target=target_iqn(mac), keys=list(IPXE_KEYS)
            )
            for mac in macs
        ]

        async def boot_one(pc: Initiator) -> None:
            for read in reads:
                assert await pc.read(read.offset, read.length) == image[read.offset : read.offset + read.length]
            await pc.close()

        with SlowDisk(0.002) as disk:
            async with asyncio.timeout(60):
                await asyncio.gather(*map(boot_one, pcs))
            (layer,) = lab.store.library.layers
            while layer.flights:
                await asyncio.sleep(0.001)
        wanted = {
            block for read in reads for block in range(read.offset // BLOCK, -(-(read.offset + read.length) // BLOCK))
        }
        assert set(disk.blocks) >= wanted
        assert max(disk.blocks.values()) == 1
        shelf = layer.shelf
        assert shelf.bytes_read == disk.bytes_read
        assert shelf.hits + shelf.misses >= PCS * READS
    assert digest(base) == before
