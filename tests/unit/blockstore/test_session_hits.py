"""Cached reads take a short way, also over several blocks, and are answered as they would be on the long one."""

from __future__ import annotations

import pytest

from bootlink_wire import iscsi_codes as codes
from bootlink_wire.iscsi_pdu import DataIn, Pdu
from lab.iscsi import OPEN_ISCSI_KEYS, Speaker, read_10, read_16
from lab.session_bench import Bench, MemoryDisk

CDBS = {"READ(10)": read_10, "READ(16)": read_16}


def ready(**keys: str) -> Bench:
    bench = Bench(Speaker(keys=list((dict(OPEN_ISCSI_KEYS) | keys).items())))
    bench.log_in()
    bench.disk.data[:] = bytes(range(251)) * (len(bench.disk.data) // 251) + bytes(len(bench.disk.data) % 251)
    return bench


def told(answers: list[Pdu]) -> list[tuple[int, ...]]:
    """All that the initiator sees of each Data-In but its bytes."""
    data = [a for a in answers if isinstance(a, DataIn)]
    assert len(data) == len(answers)
    return [
        (a.flags, a.status, a.itt, a.statsn, a.expcmdsn, a.maxcmdsn, a.datasn, a.offset, a.residual, len(a.data))
        for a in data
    ]


@pytest.mark.parametrize("cdb", CDBS)
@pytest.mark.parametrize("length", [512, 4096, 32768, 65536, 262144])
def test_a_read_in_one_pdu_is_a_hit_however_many_blocks_it_takes(cdb: str, length: int) -> None:
    bench = ready()
    offset = 33 * 512
    command = bench.speaker.command(CDBS[cdb](offset // 512, length // 512), expected=length)
    assert bench.session.receive(command.encode(), 1.0), "nothing was left to do but to send"
    (answer,) = bench.answers()
    assert isinstance(answer, DataIn)
    assert answer.data == bench.disk.data[offset : offset + length]
    assert answer.flags == codes.FINAL | codes.STATUS
    assert (bench.session.nexuses[0].reads, bench.session.nexuses[0].bytes_read) == (1, length)


@pytest.mark.parametrize("length", [4096, 65536])
def test_both_ways_answer_the_same(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for hits in (8, 0):
        bench = ready()
        commands = [bench.speaker.command(read_10(64 * n, length // 512), expected=length) for n in range(8)]
        seen.append(told(bench.send(*commands)))
        assert bench.disk.hits == hits
        monkeypatch.setattr(MemoryDisk, "hit", lambda *_: None)
        monkeypatch.setattr(MemoryDisk, "hit_blocks", lambda *_: None)
    assert seen[0] == seen[1]


@pytest.mark.parametrize("key", ["MaxRecvDataSegmentLength", "MaxBurstLength"])
def test_a_read_that_is_longer_than_a_pdu_or_a_burst_is_cut(key: str) -> None:
    bench = ready(**{key: "16384"})
    answers = bench.send(bench.speaker.command(read_10(0, 64), expected=32768))
    assert [a.offset for a in answers if isinstance(a, DataIn)] == [0, 16384]
    assert b"".join(a.data for a in answers) == bench.disk.data[:32768]


def test_hits_before_and_after_other_commands_keep_the_order_of_answers() -> None:
    bench = ready()
    commands = [
        bench.speaker.command(read_10(0, 8), expected=4096),
        bench.speaker.command(bytes(6)),
        bench.speaker.command(read_10(8, 128), expected=65536),
        bench.speaker.command(read_10(0, 8), expected=8192),  # less than was announced
        bench.speaker.command(read_10(16, 8), expected=4096),
    ]
    answers = bench.send(*commands)
    assert [a.itt for a in answers] == [c.itt for c in commands]  # type: ignore[attr-defined]
    assert bench.disk.hits == 3
