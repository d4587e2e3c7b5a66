"""The SCSI commands: what each answers, and that no CDB raises anything."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore.disk import DiskFault
from bootlink_blockstore.image import Buffers
from bootlink_blockstore.scsi.blocks import TRANSFER_LIMIT
from bootlink_blockstore.scsi.device import LogicalUnit, Nexus, Outcome
from bootlink_blockstore.scsi.table import TABLE
from bootlink_wire.scsi_cdb import ACTION_OPCODES, length
from bootlink_wire.scsi_sense import CheckCondition
from lab.session_bench import SIZE, MemoryDisk, unit

SECTORS = SIZE // 512


def run(cdb: str | bytes, data: bytes = b"", on: LogicalUnit | None = None) -> Outcome:
    """What a command comes to on a disk that has told its attentions."""
    raw = (bytes.fromhex(cdb) if isinstance(cdb, str) else cdb).ljust(16, b"\0")
    where, nexus = on or unit(MemoryDisk()), Nexus(attentions=[])
    try:
        command, _ = where.prepare(nexus, raw, len(data))
    except CheckCondition as error:
        return where.ended(error)
    running = where.execute(command, nexus, raw, data)
    return running if isinstance(running, Outcome) else asyncio.run(running)


async def _await(running: Coroutine[Any, Any, Outcome]) -> Outcome:
    return await running


def sense(outcome: Outcome) -> tuple[int, int]:
    assert outcome.status == 2
    return outcome.sense[2] & 15, outcome.sense[12] << 8 | outcome.sense[13]


def answer(cdb: str) -> bytes:
    outcome = run(cdb)
    assert outcome.status == 0
    return b"".join(outcome.data)


@pytest.mark.parametrize(
    "cdb",
    [
        "00 00 00 00 00 00",  # TEST UNIT READY
        "1b 00 00 00 00 00",  # START STOP UNIT, stop
        "1e 00 00 00 01 00",  # PREVENT
        "35 00 00 00 00 00 00 00 00 00",
        "91 00" + "00" * 14,
        "2f 00 00 00 00 00 00 00 08 00",  # VERIFY without data
        "28 00 00 00 00 00 00 00 00 00",  # READ of nothing
        "2a 00 00 00 00 00 00 00 00 00",
    ],
)
def test_what_is_accepted_without_an_answer(cdb: str) -> None:
    assert run(cdb) == Outcome()


@pytest.mark.parametrize(
    ("cdb", "expected"),
    [
        ("ff 00 00 00 00 00", (5, 0x2000)),
        ("9e 1f" + "00" * 14, (5, 0x2400)),
        ("12 00 80 00 24 00", (5, 0x2400)),  # INQUIRY with a page code and no EVPD (FIELD section 3)
        ("12 01 90 00 24 00", (5, 0x2400)),
        ("1a 00 05 00 ff 00", (5, 0x2400)),
        ("1a 00 c8 00 ff 00", (5, 0x3900)),  # saved values
        ("28 20 00 00 00 00 00 00 08 00", (5, 0x2400)),  # RDPROTECT
        ("28 00 00 00 80 00 00 00 01 00", (5, 0x2100)),  # one beyond the end
        ("28 00 00 00 7f ff 00 00 02 00", (5, 0x2100)),  # over the end
        ("88 00" + "ff" * 8 + "00 00 00 01 00 00", (5, 0x2100)),
        ("2a 00 00 00 80 00 00 00 01 00", (5, 0x2100)),
        ("2f 00 00 00 80 00 00 00 01 00", (5, 0x2100)),
        ("35 00 00 00 80 00 00 00 01 00", (5, 0x2100)),
        ("28 00 00 00 00 00 00 20 01 00", (5, 0x2400)),  # more than page B0 allows
        ("2f 04 00 00 00 00 00 00 01 00", (5, 0x2400)),
        ("a0 00 00 00 00 00 00 00 00 0f 00 00", (5, 0x2400)),
        ("25 00 00 00 00 01 00 00 00 00", (5, 0x2400)),
    ],
)
def test_what_is_refused_and_why(cdb: str, expected: tuple[int, int]) -> None:
    assert sense(run(cdb)) == expected


def test_the_last_sector_can_be_read() -> None:
    assert len(answer(f"28 00 {SECTORS - 1:08x} 00 00 01 00")) == 512


def test_capacity() -> None:
    assert answer("25" + "00" * 9).hex() == f"{SECTORS - 1:08x}00000200"
    assert answer("9e 10" + "00" * 8 + "00 00 00 20 00 00")[:12].hex() == f"{SECTORS - 1:016x}00000200"


def test_parameter_data_is_cut_to_the_allocation_length() -> None:
    assert len(answer("12 00 00 00 05 00")) == 5
    assert run("12 00 00 00 00 00") == Outcome()
    assert len(answer("1a 00 3f 00 04 00")) == 4


def test_mode_sense_with_and_without_a_block_descriptor() -> None:
    assert answer("1a 00 08 00 ff 00")[3] == 8
    assert answer("1a 08 08 00 ff 00")[3] == 0
    assert answer("5a 10 3f 00 00 00 00 00 ff 00")[6:8] == b"\0\x10"
    whole = answer("1a 08 3f 00 ff 00")
    assert whole[0] == len(whole) - 1


def test_verify_compares_what_came() -> None:
    where = unit(MemoryDisk())
    assert run("2f 02 00 00 00 00 00 00 02 00", bytes(1024), where).status == 0
    different = bytes(700) + b"x" + bytes(323)
    outcome = run("2f 02 00 00 00 00 00 00 02 00", different, where)
    assert sense(outcome) == (0xE, 0x1D00)
    assert int.from_bytes(outcome.sense[3:7], "big") == 700
    assert run("2f 06 00 00 00 00 00 00 04 00", bytes(512), where).status == 0


def test_linux_learns_which_commands_there_are() -> None:
    listed = answer("a3 0c 00 00 00 00 00 00 40 00 00 00")
    assert int.from_bytes(listed[:4], "big") == len(listed) - 4 == 8 * len(TABLE)
    assert answer("a3 0c 01 2a 00 00 00 00 00 ff 00 00")[1] == 3
    assert answer("a3 0c 01 93 00 00 00 00 00 ff 00 00")[1] == 3  # WRITE SAME(16)
    assert answer("a3 0c 01 a4 00 00 00 00 00 ff 00 00")[1] == 1  # MAINTENANCE OUT: not supported
    assert answer("a3 0c 02 9e 00 10 00 00 00 ff 00 00")[1] == 3
    one = answer("a3 0c 81 28 00 00 00 00 00 ff 00 00")
    assert one[1] == 0x83
    assert one[4:14].hex() == "28f8ffffffff00ffff00"
    assert sense(run("a3 0c 01 9e 00 00 00 00 00 ff 00 00")) == (5, 0x2400)
    assert sense(run("a3 0c 02 28 00 00 00 00 00 ff 00 00")) == (5, 0x2400)


def test_every_usage_names_its_own_command() -> None:
    for key, row in TABLE.items():
        assert row.usage[0] == key >> 8
        assert len(row.usage) == length(key >> 8)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("read", (3, 0x1100)),
        ("write", (3, 0x0C00)),
        ("space", (7, 0x2707)),
        ("fenced", (7, 0x2700)),
        ("failed", (4, 0x4400)),
    ],
)
@pytest.mark.parametrize("slow", [False, True])
def test_each_fault_of_the_disk_has_its_sense(kind: str, expected: tuple[int, int], slow: bool) -> None:
    class Broken(MemoryDisk):
        def flush(self, **_: bool) -> None:
            raise DiskFault(kind, "broken")

        def read(self, offset: int, length: int) -> Buffers | Coroutine[Any, Any, Buffers]:
            async def later() -> Buffers:
                raise DiskFault(kind, "broken")

            if slow:
                return later()
            raise DiskFault(kind, "broken")

    where = LogicalUnit(TABLE, unit(MemoryDisk()).identity, (0,), Broken())
    assert sense(run("28 00 00 00 00 00 00 00 01 00", on=where)) == expected
    assert sense(run("35 00 00 00 00 00 00 00 00 00", on=where)) == expected


@settings(max_examples=500)
@given(st.binary(min_size=16, max_size=16))
def test_no_cdb_raises_anything(cdb: bytes) -> None:
    assert run(cdb, bytes(512)).status in (0, 2, 4)


@settings(max_examples=1500)
@given(st.sampled_from(sorted(TABLE)), st.data())
def test_no_fields_and_no_data_of_a_known_command_raise_anything(key: int, data: st.DataObject) -> None:
    """What comes back fits into one transfer, and the disk is as long as before."""
    row, disk = TABLE[key], MemoryDisk(1 << 20)
    where, nexus = unit(disk), Nexus(attentions=[], port="iqn.a,i,0x1")
    # Few bits, so that many commands get past their checks; and none but those that are looked at.
    mask, cdb = row.usage.ljust(16, b"\0"), bytearray(16)
    for bit in data.draw(st.lists(st.integers(8, 127), max_size=8)):
        cdb[bit >> 3] |= 1 << (bit & 7) & mask[bit >> 3]
    cdb[0] = key >> 8
    if key & 0xFF or cdb[0] in ACTION_OPCODES:
        cdb[1] = cdb[1] & 0xE0 | key & 0xFF
    if row.parameters is not None and data.draw(st.booleans()):
        cdb[{6: 4, 10: 8, 16: 13}[length(key >> 8)]] = data.draw(st.integers(0, 128))
    try:
        command, needed = where.prepare(nexus, bytes(cdb), data.draw(st.integers(0, 4096)))
    except CheckCondition:
        return
    came = data.draw(st.binary(max_size=min(needed, 256))).ljust(min(needed, 4096), b"\0")
    running = where.execute(command, nexus, bytes(cdb), came)
    outcome = running if isinstance(running, Outcome) else asyncio.run(_await(running))
    assert outcome.status in (0, 2, 4, 0x18)
    assert sum(map(len, outcome.data)) <= TRANSFER_LIMIT * 512
    assert len(disk.data) == 1 << 20


@pytest.mark.parametrize("at", [0, 1, 4095, 4096, 8191])
def test_verify_tells_where_the_first_difference_is(at: int) -> None:
    disk = MemoryDisk()
    disk.data[at:8192] = b"x" * (8192 - at)
    outcome = run("2f 02 00 00 00 00 00 00 10 00", bytes(8192), unit(disk))
    assert sense(outcome) == (0xE, 0x1D00)
    assert int.from_bytes(outcome.sense[3:7], "big") == at
