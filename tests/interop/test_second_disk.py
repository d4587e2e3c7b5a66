"""A second disk, from the registry's link to a session: what a plan names as LUN 1 is found there by libiscsi's and
QEMU's initiators, beside the disk that boots, and each has its own policy."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bootlink_events import NODES_BUCKET, BootDiskAttached, BootId, NodeInfo
from lab.blockstore import digest, identity, make_image
from lab.blockstore import serving as blockstore_serving
from lab.chassis import MAC, reader
from lab.disks import MIB
from lab.nats import NatsServer
from lab.registry import registry_on, until
from lab.tools import tool


async def test_a_shared_second_disk_is_lun_1_of_the_clients_session_with_a_policy_of_its_own(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    system = make_image(tmp_path / "system.img", 2 * MIB)
    games = make_image(tmp_path / "games.img", 4 * MIB, seed=2)
    before = [digest(system), digest(games)]
    async with (
        registry_on(nats.url, database, tmp_path / "registry") as registry,
        reader(nats.url, tmp_path) as (bus, book),
        blockstore_serving(tmp_path, node="store") as store,
    ):
        await book.synced()
        node = NodeInfo(node="store", portals=(f"{store.host}:{store.port}",), seen=datetime.now(UTC))
        await bus.put(NODES_BUCKET, "store", node.model_dump_json().encode())
        for image in (system, games):
            await registry.add_image(image.stem, image)
        await registry.add_client(MAC, "pc-07")
        await registry.link("client", "pc-07", "system", policy="keep")
        await registry.link("default", "", "games", lun=1)
        await until(lambda: (plan := book.get(MAC)) is not None and len(plan.disks) == 2, "the plan with two disks")
        plan = book.get(MAC)
        assert plan is not None
        store.plans[MAC] = plan

        def where(lun: int, name: str) -> str:
            return (
                f"driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={store.host}:{store.port},"
                f"file.target={plan.target},file.lun={lun},file.initiator-name={name}"
            )

        name = identity(BootId.mint(), MAC)
        listed = await tool("iscsi-ls", "-s", "-i", name, f"iscsi://{store.host}:{store.port}")
        assert [line.split()[0] for line in listed.splitlines() if line.startswith("Lun:")] == ["Lun:0", "Lun:1"]
        for lun, image in enumerate((system, games)):
            copy = tmp_path / f"copy-{lun}.img"
            await tool("qemu-img", "convert", "--image-opts", where(lun, name), "-O", "raw", str(copy))
            assert digest(copy) == digest(image)
            await tool("qemu-io", "--image-opts", where(lun, name), "-c", "write -P 7 0 4k")
        attached = [stage for stage in store.told.of(BootDiskAttached) if isinstance(stage, BootDiskAttached)]
        assert {(stage.lun, stage.image, stage.policy) for stage in attached} == {
            (0, "system", "keep"),
            (1, "games", "discard"),
        }

        # The next boot: what was kept is there on LUN 0, and LUN 1 is the room's disk again.
        again = identity(BootId.mint(), MAC)
        for lun, kept in ((0, True), (1, False)):
            copy = tmp_path / f"again-{lun}.img"
            await tool("qemu-img", "convert", "--image-opts", where(lun, again), "-O", "raw", str(copy))
            assert (copy.read_bytes()[:4096] == b"\7" * 4096) == kept
            assert (digest(copy) == before[lun]) == (not kept)
    assert [digest(system), digest(games)] == before
