"""D4: no byte of another client, nor of an earlier boot, can be read anywhere in a client's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootlink_events import BootId
from lab.blockstore import MAC, Lab, digest, identity, make_image, plan, serving
from lab.filesystem import Kind, small
from lab.iscsi import Initiator, unmap

SIZE = 8 << 20
ROOM = 20 << 20  # so small that the file system must use again what was given back
OTHER = "52:54:00:00:00:02"
CANARY = b"canary of an earlier boot "


async def login(running: Lab, boot_id: BootId, mac: str = MAC) -> Initiator:
    return await Initiator.logged_in(
        running.host, running.port, name=identity(boot_id, mac), target=running.plans[mac].target
    )


async def whole(client: Initiator) -> bytes:
    return b"".join([await client.read(offset, 1 << 20) for offset in range(0, SIZE, 1 << 20)])


async def command(client: Initiator, cdb: bytes, data: bytes) -> None:
    client.send(client.command(cdb, expected=len(data), write=True, data=data))
    answer = await client.receive()
    assert getattr(answer, "status", None) == 0


@pytest.mark.parametrize("kind", ["ext4", "tmpfs"])
async def test_a_canary_is_never_readable_by_another_client_nor_after_a_reboot(kind: Kind, tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", SIZE)
    before, image = digest(base), base.read_bytes()
    with small(kind, tmp_path, ROOM) as folder:
        async with serving(folder, plan(base), plan(base, mac=OTHER)) as running:
            boots = [BootId.mint()]
            other = await login(running, BootId.mint(), OTHER)
            for _ in range(2):
                pc = await login(running, boots[-1])
                assert await whole(pc) == image, "a new boot is the image, bit for bit"
                for offset in range(0, SIZE, 64 << 10):
                    await pc.write(offset, (CANARY * 4096)[: 64 << 10])
                boots.append(BootId.mint(after=boots[-1]))
                await (await login(running, boots[-1])).close()
                await running.reclaim()
                # The other one takes the blocks that became free: a sector of a page at a time, a trim here and there.
                held = bytearray(image)
                for page in range(0, SIZE // 4096, 6):
                    await other.write(page * 4096 + 512, b"o" * 512)
                    held[page * 4096 + 512 : page * 4096 + 1024] = b"o" * 512
                for page in range(0, SIZE // 4096, 30):
                    await command(other, *unmap([(page * 8, 12)]))
                    held[page * 4096 : page * 4096 + 12 * 512] = bytes(12 * 512)
                seen = await whole(other)
                assert CANARY[:16] not in seen
                assert seen == held
                await other.close()
                boots.append(BootId.mint(after=boots[-1]))
                other = await login(running, boots[-1], OTHER)
                await pc.close()
            await other.close()
    assert digest(base) == before
