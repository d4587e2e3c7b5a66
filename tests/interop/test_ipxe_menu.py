"""A boot menu from end to end: set at the registry, shown by QEMU's own PXE ROM (iPXE of 2019), and what is chosen on
the keyboard is the disk that boots, under the target's name that says so. Nothing here needs root."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bootlink_events import NODES_BUCKET, BootDiskAttached, BootFailed, BootPlan, NodeInfo
from bootlink_runtime import PlanBook
from lab.blockstore import Lab, digest
from lab.blockstore import serving as blockstore_serving
from lab.boot_plans import MAC
from lab.chassis import reader
from lab.ipxe import DOWN, ENTER, ESCAPE, GATEWAY, pc
from lab.nats import NatsServer
from lab.registry import Registry, registry_on, speaking_disk, until
from lab.tftp import address_of
from lab.tftp import serving as tftp_serving

UBUNTU = {"name": "ubuntu", "title": "Ubuntu 24.04", "image": "ubuntu"}


async def set_menu(registry: Registry, **menu: Any) -> None:
    answer = await registry.http.put("/v1/menus/default", json={"title": "Windows 11", "entries": [UBUNTU]} | menu)
    assert answer.status_code == 200, answer.text


async def waiting_for(book: PlanBook, seconds: int) -> BootPlan:
    """The PC's plan, once it has a menu that waits for so long."""

    def there() -> bool:
        plan = book.get(MAC)
        return plan is not None and plan.bootable and plan.menu is not None and plan.menu.seconds == seconds

    await until(there, "the plan with its menu")
    plan = book.get(MAC)
    assert plan is not None
    return plan


def booted(store: Lab) -> str:
    """The image that the last login got."""
    assert store.told.of(BootFailed) == []
    last = store.told.of(BootDiskAttached)[-1]
    assert isinstance(last, BootDiskAttached)
    return last.image


async def test_a_pc_shows_its_menu_and_boots_what_is_chosen_or_the_default_when_nobody_chooses(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    images = [speaking_disk(tmp_path / f"{name}.img", f"Hello from {name}.") for name in ("win11", "ubuntu")]
    before = [digest(image) for image in images]
    async with (
        registry_on(nats.url, database, tmp_path / "registry") as registry,
        reader(nats.url, tmp_path) as (bus, book),
        blockstore_serving(tmp_path) as store,
        tftp_serving(tmp_path, nats_url=nats.url, advertise=GATEWAY) as tftp,
    ):
        await book.synced()  # so the registry has made the buckets
        node = NodeInfo(node="store", portals=(f"{GATEWAY}:{store.port}",), seen=datetime.now(UTC))
        await bus.put(NODES_BUCKET, "store", node.model_dump_json().encode())
        for image in images:
            await registry.add_image(image.stem, image)
        await registry.add_client(MAC, "pc-07")
        await registry.link("default", "", "win11")
        await set_menu(registry, seconds=0)
        store.plans[MAC] = await waiting_for(book, 0)
        boot_file = f"tftp://{GATEWAY}:{address_of(tftp)[1]}/autoexec.ipxe"

        async with pc(boot_file) as screen:
            await screen.shows("Bootlink: pc-07", "Windows 11", "Ubuntu 24.04")
            await screen.press(ESCAPE)
            await screen.shows("Bootlink: pc-07", "Windows 11", "Ubuntu 24.04")
            await screen.press(DOWN)
            await screen.press(ENTER)
            await screen.shows("Bootlink: pc-07 boots ubuntu version 1", "Hello from ubuntu.")
        assert booted(store) == "ubuntu"
        assert [boot.entry for boot in store.store.attachments.boots] == ["ubuntu"]

        await set_menu(registry, seconds=1)
        await waiting_for(book, 1)
        async with pc(boot_file) as screen:
            await screen.shows("Windows 11", "Bootlink: pc-07 boots win11 version 1", "Hello from win11.")
        assert booted(store) == "win11"
    assert [digest(image) for image in images] == before
