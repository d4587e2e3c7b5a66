"""D6: a discard costs a boot nothing, however much there is to discard, and delays nobody."""

from __future__ import annotations

from pathlib import Path

from bootlink_blockstore.writeback import Writebacks
from bootlink_events import BootId
from lab.blockstore import make_image, plan
from rigs import storm
from rigs.files import recording


def test_a_room_that_reboots_and_a_client_that_reads_wait_for_no_reclaim(tmp_path: Path) -> None:
    assert storm.run(200, 20261124, tmp_path)["write-backs reclaimed"] == 400


def test_the_start_of_a_boot_asks_as_much_of_the_file_system_however_much_it_discards(tmp_path: Path) -> None:
    boots = plan(make_image(tmp_path / "base.img", 64 << 20))
    asked = []
    root = tmp_path / "writebacks"
    root.mkdir()
    for number, pages in enumerate((0, 1, 16_000, 1)):
        writebacks = Writebacks(root)
        manifests = writebacks.intended(boots, BootId.mint(now_ms=1_000_000 + number))
        with recording(root) as log:
            ((_, overlay),) = writebacks.begin(manifests)
        asked.append([call[0] for call in log.calls])
        for page in range(pages):
            overlay.write(page * 4096, [b"x" * 4096])
        overlay.close()
    assert asked[1] == asked[2] == asked[3]
    assert len(asked[1]) < 20
