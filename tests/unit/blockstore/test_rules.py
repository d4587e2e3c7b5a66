"""The SCSI side of the rules of PROTOCOLS 2.2, each under its number; and that every rule has a test that names it.

The rules of iSCSI itself are tested where their parts are: sessions, logins, texts, digests, CHAP, conversations.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_codes import NO_TAG
from bootlink_wire.iscsi_pdu import DataIn, ReadyToTransfer, ScsiResponse
from lab.iscsi import Speaker, read_10, write_10
from lab.session_bench import SIZE, Bench, unit
from lab.unit_bench import UnitBench

RULES = range(1, 25)
CAPACITY_16 = "9e 10" + "00" * 8 + "00 00 00 20 00 00"


@pytest.fixture
def lab() -> UnitBench:
    return UnitBench()


def test_every_rule_has_a_test_that_names_it() -> None:
    named: set[int] = set()
    for path in Path(__file__).parents[2].rglob("test_*.py"):
        for numbers in re.findall(r"^(?:async )?def test_rule_(\d+(?:_and_\d+)*)_", path.read_text(), re.MULTILINE):
            named |= {int(number) for number in numbers.split("_and_")}
    assert named == set(RULES)


def test_rule_5_r2t_data_without_status_and_a_ping_of_ours_use_up_no_statsn() -> None:
    bench = Bench(Speaker(keys=[("ImmediateData", "No"), ("MaxRecvDataSegmentLength", "512")]))
    bench.log_in()
    statsn = bench.session._statsn
    (ask,) = bench.send(bench.speaker.command(write_10(0, 1), expected=512, write=True))
    assert isinstance(ask, ReadyToTransfer)
    pieces = bench.send(bench.speaker.command(read_10(0, 2), expected=1024))
    assert [(p.flags & codes.STATUS, p.statsn) for p in pieces if isinstance(p, DataIn)] == [(0, 0), (1, statsn)]
    bench.session.tick(1000.0)
    (ping,) = bench.answers()
    assert isinstance(ping, pdu.NopIn)
    assert (ask.statsn, ping.statsn, ping.itt) == (statsn, statsn + 1, NO_TAG)
    (response,) = bench.send(pdu.DataOut(itt=ask.itt, ttt=ask.ttt, data=bytes(512)))
    assert isinstance(response, ScsiResponse)
    assert response.statsn == statsn + 1


def test_rule_17_lun_0_says_what_there_is_also_where_it_is_not_there() -> None:
    bench = Bench()
    bench.units = {3: unit(bench.disk, 3, (3,))}
    bench.log_in()
    inquiry, report = bytes.fromhex("120000002400"), bytes.fromhex("a00000000000000000200000")
    (told,) = bench.send(bench.speaker.command(inquiry, expected=36))
    assert isinstance(told, DataIn)
    assert told.data[0] == 0x7F, "no device of this number, and an answer"
    (listed,) = bench.send(bench.speaker.command(report, expected=32))
    assert isinstance(listed, DataIn)
    assert listed.status == 0


def test_rule_18_the_disk_says_what_it_is_the_same_at_every_boot(lab: UnitBench) -> None:
    standard = lab.answer("12 00 00 00 60 00")
    assert standard[0] == 0
    assert standard[2] >= 5, "SPC-3 or newer"
    assert standard[7] & 2, "CmdQue"
    pages = lab.answer("12 01 00 00 ff 00")[4:]
    assert list(pages) == sorted(pages)
    assert {0x00, 0x80, 0x83, 0xB0, 0xB1, 0xB2} <= set(pages)
    again = UnitBench()
    for page in pages:
        asked = f"12 01 {page:02x} 04 00 00"
        assert lab.answer(asked) == again.answer(asked)


def test_rule_19_the_caching_page_tells_the_truth_and_fua_is_honoured(lab: UnitBench) -> None:
    header = lab.answer("1a 08 3f 00 ff 00")
    assert header[2] & 0x10, "DPOFUA"
    assert b"\x08\x12\x04" in header, "WCE"
    assert b"\x0a\x0a" in header, "the control page is among all pages"
    lab(write_10(0, 1), bytes(512))
    assert lab.disk.stable == 0
    lab(write_10(0, 1, fua=True), bytes(512))
    assert lab.disk.stable == 1


def test_rule_20_what_is_unmapped_reads_as_zeros_and_says_so(lab: UnitBench) -> None:
    capacity = lab.answer(CAPACITY_16)
    assert capacity[14] & 0xC0 == 0xC0, "LBPME and LBPRZ"
    assert capacity[13] & 15 == 3, "4 KiB"
    lab(write_10(8, 8), b"x" * 4096)
    extent = (8).to_bytes(8, "big") + (8).to_bytes(4, "big") + bytes(4)
    listed = (22).to_bytes(2, "big") + (16).to_bytes(2, "big") + bytes(4) + extent
    assert lab(bytes.fromhex("42 00 00 00 00 00 00 00 18 00"), listed).status == 0
    assert lab.answer(read_10(8, 8)) == bytes(4096)


@pytest.mark.parametrize("cdb", ["35 00 00 00 00 00 00 00 00 00", "91 00" + "00" * 14, "35 00 00 00 00 08 00 00 08 00"])
def test_rule_21_synchronize_cache_flushes_before_it_is_answered(lab: UnitBench, cdb: str) -> None:
    assert lab(bytes.fromhex(cdb)).status == 0
    assert lab.disk.flushes == 1


def test_rule_22_compare_and_write_is_one_step_and_a_miscompare_tells_where(lab: UnitBench) -> None:
    cdb = bytes.fromhex("89 00 00 00 00 00 00 00 00 05 00 00 00 01 00 00")
    assert lab(cdb, bytes(512) + b"A" * 512).status == 0
    outcome = lab(cdb, bytes(512) + b"B" * 512)
    assert (outcome.sense[2] & 15, outcome.sense[12:14].hex()) == (0xE, "1d00")
    assert lab.at(5) == b"A" * 512
    assert lab.answer("12 01 b0 04 00 00")[5] == 255, "blocks at most, in page B0"


def test_rule_23_linux_learns_which_commands_there_are_and_a_boot_disk_does_not_stop(lab: UnitBench) -> None:
    everything = lab.answer("a3 0c 00 00 00 00 00 00 ff ff 00 00")
    assert int.from_bytes(everything[:4], "big") == len(everything) - 4
    for op in (0x12, 0x41, 0x42, 0x93):
        one = lab.answer(f"a3 0c 01 {op:02x} 00 00 00 00 00 40 00 00")
        assert one[1] & 7 == 3, f"{op:02x} is supported, as the standard has it"
    assert lab.answer("a3 0c 01 f7 00 00 00 00 00 40 00 00")[1] & 7 == 1
    assert lab(bytes.fromhex("1b 00 00 00 00 00")).status == 0
    assert lab.answer(read_10(SIZE // 512 - 1, 1)) == bytes(512)
