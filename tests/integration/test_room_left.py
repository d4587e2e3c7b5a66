"""No boot begins where its writes have no room: from what a block store's disk has left to the words on the screen."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from bootlink_blockstore.service import SERVICE as BLOCKSTORE
from bootlink_blockstore.settings import Settings
from bootlink_events import NODES_BUCKET, BootId, NodeInfo, mac_token
from bootlink_runtime import running
from lab.boot_plans import MAC
from lab.chassis import reader
from lab.nats import NatsServer
from lab.registry import raw_disk, registry_on, until
from lab.tftp import address_of, get
from lab.tftp import serving as tftp_serving

MORE_THAN_THERE_IS = 1 << 62  # bytes
SCRIPT = f"boot/{BootId.mint()}/{mac_token(MAC)}.ipxe"


async def test_a_pc_is_told_that_no_room_is_left_and_is_sent_to_the_node_that_has_some(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    store = Settings(
        data=tmp_path / "store", node="store", nats_url=nats.url, host="127.0.0.1", port=0, advertise="127.0.0.1"
    )
    async with (
        registry_on(nats.url, database, tmp_path / "registry", boot_reserve=MORE_THAN_THERE_IS) as registry,
        reader(nats.url, tmp_path) as (bus, book),
        running(BLOCKSTORE, store),
        tftp_serving(tmp_path, nats_url=nats.url) as tftp,
    ):
        await registry.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await registry.add_client(MAC, "pc-07")
        await registry.link("default", "", "demo")

        def refused() -> bool:
            plan = book.get(MAC)
            return plan is not None and plan.refusal is not None and plan.refusal.cause == "disk_full"

        await until(refused, "the plan to tell that no room is left")
        plan = book.get(MAC)
        assert plan is not None
        assert plan.refusal is not None
        assert plan.refusal.detail.startswith("there is no room for what this PC would write: block store store has ")
        assert plan.refusal.detail.endswith(" MiB left")
        assert [disk.image for disk in plan.disks] == ["demo"], "a PC that runs finds its disk again"

        async def shown() -> bool:
            script = (await get(address_of(tftp), SCRIPT)).decode()
            return "nearly full" in script and "sanhook" not in script

        await until(shown, "the screen that says so")
        # The API says it too, and another block store takes the PC.
        assert (await registry.get("/v1/clients/pc-07"))["plan"]["refusal"]["cause"] == "disk_full"
        roomy = NodeInfo(node="roomy", portals=("127.0.0.9:3260",), seen=datetime.now(UTC), free=2 * MORE_THAN_THERE_IS)
        await bus.put(NODES_BUCKET, "roomy", roomy.model_dump_json().encode())

        def sent_there() -> bool:
            now = book.get(MAC)
            return now is not None and now.bootable and now.portals == ("127.0.0.9:3260",)

        await until(sent_there, "the plan that names the other block store alone")
