"""QEMU's own PXE ROM (iPXE of 2019) logs in by CHAP, both ways, with the secrets that its boot script carries."""

from __future__ import annotations

from pathlib import Path

from bootlink_blockstore.access import Access
from bootlink_events import BootDiskAttached, BootFailed, ClusterKey
from lab.blockstore import digest, make_image, plan, serving
from lab.boot_plans import MAC
from lab.ipxe import GATEWAY, pc
from lab.tftp import address_of, snapshot
from lab.tftp import serving as tftp_serving

KEY = "the cluster key of this test, long enough"


async def test_rule_15_ipxe_logs_in_by_chap_both_ways_with_the_secrets_of_its_script(tmp_path: Path) -> None:
    base = make_image(tmp_path / "base.img", 1 << 20)
    before = digest(base)
    asks = plan(base, mac=MAC, chap="mutual")
    async with serving(tmp_path, asks, access=Access(ClusterKey(KEY.encode()))) as lab:
        snapshot(tmp_path / "data", asks.model_copy(update={"portals": (f"{GATEWAY}:{lab.port}",)}))
        async with tftp_serving(tmp_path, advertise=GATEWAY, cluster_key=KEY) as chassis:
            _, port = address_of(chassis)
            async with pc(f"tftp://{GATEWAY}:{port}/autoexec.ipxe") as screen:
                await screen.shows("boots base version 1", "Registered SAN device 0x80")
                assert lab.told.of(BootFailed) == []
                (attached,) = lab.told.of(BootDiskAttached)
                assert isinstance(attached, BootDiskAttached)
                assert attached.initiator == "firmware"
    assert digest(base) == before
