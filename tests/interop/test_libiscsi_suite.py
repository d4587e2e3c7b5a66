"""libiscsi's conformance tests (iscsi-test-cu 1.19), all 230: each alone, and all in one process (PROTOCOLS 1.1).

Every test passes, but for those in `conformance.expected`, each of which must be skipped, or fail, exactly as it says
there. Each has two paths to its unit, and alone a disk of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bootlink_wire import scsi_modes as codec
from bootlink_wire import scsi_vpd
from bootlink_wire.iscsi_pdu import ScsiResponse
from bootlink_wire.scsi_cdb import Op
from conformance import page, tool
from conformance.expected import DEFECTS, SKIPS, SKIPS_LIMIT
from conformance.tool import FAILED, PASSED, SKIPPED, Verdict
from lab.blockstore import Lab, digest, plan, serving
from lab.iscsi import Initiator

SUITES = sorted({name.partition(".")[0] for name in tool.tests()})


def agreed(name: str, verdict: Verdict, *, whole: bool = False) -> bool:
    """Whether a verdict is what is known of the test."""
    defect = DEFECTS.get(name)
    if defect is not None and (defect.whole or not whole):
        return verdict == Verdict(FAILED, (defect.asserts,))
    return verdict.what == (SKIPPED if name in SKIPS else PASSED)


def nothing_unforeseen(lab: Lab) -> bool:
    return not {"commands_failed_unforeseen", "logins_failed_unforeseen"} & set(lab.told.counters)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("suite", SUITES)
async def test_each_test_alone(suite: str, tmp_path: Path) -> None:
    base = tool.disk(tmp_path / "base.img")
    before = digest(base)
    macs = {name: f"52:54:00:00:01:{n:02x}" for n, name in enumerate(tool.tests()) if name.startswith(f"{suite}.")}
    async with serving(tmp_path, *(plan(base, mac=mac) for mac in macs.values())) as lab:
        verdicts = {name: await tool.alone(name, lab.url(mac)) for name, mac in macs.items()}
        assert {name: verdict for name, verdict in verdicts.items() if not agreed(name, verdict)} == {}
        assert nothing_unforeseen(lab)
    assert digest(base) == before, "the image's bytes have changed"


@pytest.mark.timeout(500)
async def test_all_tests_in_one_process(tmp_path: Path) -> None:
    base = tool.disk(tmp_path / "base.img")
    before = digest(base)
    async with serving(tmp_path, plan(base)) as lab:
        verdicts = await tool.together("all", lab.url())
        assert set(verdicts) == set(tool.tests()), "the tool has not run to its end"
        wrong = {name: verdict for name, verdict in verdicts.items() if not agreed(name, verdict, whole=True)}
        assert wrong == {}
        assert nothing_unforeseen(lab)
    assert digest(base) == before, "the image's bytes have changed"


async def test_the_reset_test_passes_once_another_has_set_its_flag(tmp_path: Path) -> None:
    base = tool.disk(tmp_path / "base.img")
    name = "iSCSITMF.LUNResetSimpleAsync"
    async with serving(tmp_path, plan(base)) as lab:
        assert await tool.alone(name, lab.url()) == Verdict(FAILED, (DEFECTS[name].asserts,))
        both = await tool.together("iSCSITMF", lab.url())
        assert both == {"iSCSITMF.AbortTaskSimpleAsync": Verdict(PASSED), name: Verdict(PASSED)}


async def test_the_read_only_test_passes_on_a_disk_that_is_write_protected(tmp_path: Path) -> None:
    base = tool.disk(tmp_path / "base.img")
    page_0a = bytes((0x0A, 0x0A, 0x00, 0x10, codec.SWP)) + bytes(7)
    data = bytes(4) + page_0a
    async with serving(tmp_path, plan(base)) as lab:
        who = await Initiator.logged_in(lab.host, lab.port)
        cdb = bytes((Op.MODE_SELECT_6, 0x10, 0, 0, len(data), 0))
        who.send(who.command(cdb, expected=len(data), write=True, data=data))
        answer = await who.receive()
        assert isinstance(answer, ScsiResponse)
        assert answer.status == 0
        assert await tool.alone("ReadOnly.ReadOnlySBC", lab.url()) == Verdict(PASSED)
        await who.close()


async def test_the_unmap_test_passes_where_physical_blocks_are_logical_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tool.disk(tmp_path / "base.img")
    async with serving(tmp_path, plan(base)) as lab:
        monkeypatch.setattr(scsi_vpd, "PHYSICAL_EXPONENT", 0)
        assert await tool.alone("GetLBAStatus.UnmapSingle", lab.url()) == Verdict(PASSED)


def test_at_most_30_are_skipped_and_the_page_gives_the_reason_of_each() -> None:
    assert len(SKIPS) <= SKIPS_LIMIT
    assert set(SKIPS) | set(DEFECTS) <= set(tool.tests())
    assert page.exceptions() in page.PAGE.read_text(), "stale: make conformance"
    assert page.figures_are_there(), "no figures: make conformance"


def test_the_tools_words_are_understood() -> None:
    words = """
Suite: A
  Test: One ...passed
  Test: Two ...    [SKIPPED] no such thing
    [SKIPPED] PERSISTENT RESERVE IN is not implemented.
passed    [FAILED] PRIN command: failed with sense.
  Test: Three ...    [FAILED] READ10 went wrong
FAILED
    1. t.c:1  - CU_ASSERT_EQUAL(a,b)
    2. t.c:2  - CU_ASSERT_EQUAL(c,d)    [FAILED] what the next one says
  Test: Four ...    [SKIPPED] PERSISTENT RESERVE IN is not implemented.
passed
Suite: B
  Test: Five ..."""
    assert tool.read(words) == {
        "A.One": Verdict(PASSED),
        "A.Two": Verdict(SKIPPED, ("no such thing",)),
        "A.Three": Verdict(FAILED, ("t.c:1  - CU_ASSERT_EQUAL(a,b)", "t.c:2  - CU_ASSERT_EQUAL(c,d)")),
        "A.Four": Verdict(PASSED),
        "B.Five": Verdict("crashed"),
    }
