"""Full-feature phase: numbers, data both ways, residuals, and what breaks the protocol. Rules are PROTOCOLS 2.2's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore.scsi.blocks import TRANSFER_LIMIT
from bootlink_blockstore.sequence import WINDOW
from bootlink_blockstore.session import OUTPUT_LIMIT, PING_AFTER, PING_PATIENCE
from bootlink_blockstore.tasks import READ_BUFFER
from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_codes import FINAL, NO_TAG, RejectReason
from bootlink_wire.iscsi_pdu import DataIn, Pdu, ReadyToTransfer, ScsiResponse
from lab.iscsi import IPXE_KEYS, Speaker, read_10, read_16, write_10
from lab.session_bench import Bench, unit

READ_LIMIT = TRANSFER_LIMIT * 512
NO_R2T_KEYS = [("InitialR2T", "No"), ("ImmediateData", "Yes"), ("MaxRecvDataSegmentLength", "262144")]


def ready(**keys: str) -> Bench:
    """A session in full feature; keyword arguments are negotiated keys."""
    bench = Bench(Speaker(keys=list(keys.items()))) if keys else Bench()
    bench.log_in()
    return bench


def good(answers: list[Pdu]) -> ScsiResponse:
    (response,) = answers
    assert isinstance(response, ScsiResponse)
    assert response.status == 0, response
    return response


def sense_of(answers: list[Pdu]) -> tuple[int, int]:
    (response,) = answers
    assert isinstance(response, ScsiResponse)
    assert response.status == 2
    return response.data[4] & 15, response.data[14] << 8 | response.data[15]


def data_of(answers: list[Pdu]) -> bytes:
    assert all(isinstance(a, DataIn) for a in answers)
    return b"".join(a.data for a in answers)


# Rule 4, 5: numbers


def test_a_read_is_answered_by_data_that_carries_the_status() -> None:
    bench = ready()
    bench.disk.data[4096:8192] = b"x" * 4096
    (answer,) = bench.send(bench.speaker.command(read_10(8, 8), expected=4096))
    assert isinstance(answer, DataIn)
    assert (answer.flags, answer.status, answer.data) == (FINAL | codes.STATUS, 0, b"x" * 4096)
    assert bench.disk.hits == 1
    assert bench.session.nexuses[0].bytes_read == 4096


def test_the_hit_path_and_the_long_way_answer_alike() -> None:
    cdbs = [
        read_10(3, 5),
        read_16(3, 5),
        bytes.fromhex("0800000305") + b"\0",
        bytes.fromhex("a80000000003000000050000"),
    ]
    seen = set()
    for cdb in cdbs:
        bench = ready()
        bench.disk.data[:8192] = bytes(range(256)) * 32
        bench.speaker.itt = 500
        (answer,) = bench.send(bench.speaker.command(cdb, expected=2560))
        seen.add(answer.encode())
        assert bench.session.nexuses[0].reads == 1
    assert len(seen) == 1


def test_rule_4_the_window_never_shrinks_and_moves_with_each_command_that_ends() -> None:
    bench = ready()
    highest = bench.session._max_cmdsn
    bench.disk.slow = True
    for _ in range(5):
        assert bench.send(bench.speaker.command(read_10(0, 8), expected=4096)) == []
        assert bench.session._max_cmdsn == highest
    answers = bench.run()
    assert [a.maxcmdsn for a in answers if isinstance(a, DataIn)] == [highest + n for n in range(1, 6)]


def test_rule_4_a_command_outside_the_window_is_ignored() -> None:
    bench = ready()
    speaker = bench.speaker
    for cmdsn in (speaker.cmdsn - 1, speaker.cmdsn + WINDOW, speaker.cmdsn + (1 << 31)):
        assert bench.send(speaker.command(read_10(0, 8), expected=4096, cmdsn=cmdsn & 0xFFFFFFFF)) == []
    assert bench.errors["cmdsn_outside_window"] == 3
    assert len(bench.send(speaker.command(read_10(0, 8), expected=4096))) == 1


def test_a_command_ahead_of_its_turn_waits_for_those_before_it() -> None:
    bench = ready()
    speaker = bench.speaker
    first, second, third = (speaker.command(read_10(n, 1), expected=512) for n in range(3))
    assert bench.send(third, second) == []
    assert [a.itt for a in bench.send(first) if isinstance(a, DataIn)] == [first.itt, second.itt, third.itt]


def test_a_closed_window_takes_no_command_so_open_tasks_are_bounded() -> None:
    bench = ready()
    bench.disk.slow = True
    for _ in range(3 * WINDOW):
        bench.send(bench.speaker.command(write_10(0, 1), expected=512, write=True, data=b"x" * 512))
    assert len(bench.session.tasks) == WINDOW
    assert bench.errors["cmdsn_outside_window"] == 2 * WINDOW
    assert len(bench.run()) == WINDOW


@pytest.mark.parametrize("expected", [READ_LIMIT, 0])
@pytest.mark.parametrize("ahead", [False, True])
def test_reads_under_way_are_bounded_whatever_was_announced_and_in_whatever_order(expected: int, ahead: bool) -> None:
    bench = ready()
    bench.disk.slow = True
    commands = [bench.speaker.command(read_10(0, READ_LIMIT // 512), expected=expected) for _ in range(20)]
    bench.send(*([*commands[1:], commands[0]] if ahead else commands))
    assert len(bench.started) * READ_LIMIT == READ_BUFFER
    answered = 0
    while bench.started:
        answered += sum(isinstance(a, ScsiResponse) or bool(a.flags & codes.STATUS) for a in bench.run())  # type: ignore[attr-defined]
        bench.session.receive(b"")
        assert len(bench.started) * READ_LIMIT <= READ_BUFFER
    assert answered == 20


def test_commands_that_waited_for_their_turn_stop_at_the_output_limit_too() -> None:
    bench = ready(MaxRecvDataSegmentLength="262144")
    commands = [bench.speaker.command(read_10(0, READ_LIMIT // 512), expected=READ_LIMIT) for _ in range(8)]
    bench.session.receive(b"".join(c.encode() for c in [*commands[1:], commands[0]]), 1.0)
    seen = []
    while True:
        assert sum(map(len, bench.session.out)) < 2 * OUTPUT_LIMIT + (1 << 20)
        seen += [a.itt for a in bench.answers() if isinstance(a, DataIn) and a.flags & codes.STATUS]
        if not bench.session.more:
            break
        bench.session.receive(b"")
    assert seen == [c.itt for c in commands]


def test_rule_4_an_immediate_command_takes_no_number() -> None:
    bench = ready()
    expected = bench.session._exp_cmdsn
    good(bench.send(bench.speaker.command(bytes(6), immediate=True)))
    assert bench.session._exp_cmdsn == expected


@settings(max_examples=60)
@given(
    st.integers(0xFFFFFFF0, 0xFFFFFFFF), st.lists(st.sampled_from(["read", "tur", "slow", "run", "nop"]), max_size=40)
)
def test_rule_4_and_5_numbers_wrap(start: int, steps: list[str]) -> None:
    bench = Bench(Speaker(cmdsn=start))
    bench.log_in()
    bench.session._statsn = 0xFFFFFFF8
    statsn = bench.session._statsn
    for step in steps:
        answers: list[Pdu] = []
        if step == "run":
            answers = bench.run()
        elif step == "nop":
            cmdsn, bench.speaker.cmdsn = bench.speaker.cmdsn, (bench.speaker.cmdsn + 1) & 0xFFFFFFFF
            answers = bench.send(pdu.NopOut(itt=bench.speaker.tag(), cmdsn=cmdsn))
        else:
            bench.disk.slow = step == "slow"
            cdb = bytes(6) if step == "tur" else read_10(0, 8)
            answers = bench.send(bench.speaker.command(cdb, expected=0 if step == "tur" else 4096))
        for answer in answers:
            assert answer.statsn == statsn  # type: ignore[attr-defined]
            statsn = (statsn + 1) & 0xFFFFFFFF
            assert answer.expcmdsn == bench.speaker.cmdsn  # type: ignore[attr-defined]
        window = (bench.session._max_cmdsn - bench.session._exp_cmdsn + 1) & 0xFFFFFFFF
        assert window == WINDOW - len(bench.started)
    bench.run()


# Data in


def test_ipxe_gets_its_data_in_pieces_of_8_kib() -> None:
    bench = Bench(Speaker(keys=IPXE_KEYS))
    bench.log_in()
    bench.disk.data[:65536] = bytes(range(256)) * 256
    answers = bench.send(bench.speaker.command(read_10(0, 128), expected=65536))
    pieces = [a for a in answers if isinstance(a, DataIn)]
    assert [(p.offset, len(p.data), p.datasn) for p in pieces] == [(n * 8192, 8192, n) for n in range(8)]
    assert [p.flags for p in pieces] == [0] * 7 + [FINAL | codes.STATUS]
    assert data_of(answers) == bench.disk.data[:65536]


def test_a_burst_ends_with_the_final_bit() -> None:
    bench = ready(MaxBurstLength="16384", MaxRecvDataSegmentLength="8192")
    answers = bench.send(bench.speaker.command(read_10(0, 72), expected=36864))
    assert [a.flags for a in answers if isinstance(a, DataIn)] == [0, FINAL, 0, FINAL, FINAL | codes.STATUS]


def test_a_large_read_stops_the_session_until_its_output_is_sent() -> None:
    bench = ready()
    requests = [bench.speaker.command(read_10(0, 8192), expected=4 << 20) for _ in range(3)]
    bench.session.receive(b"".join(r.encode() for r in requests))
    assert bench.session.more
    assert len(data_of(bench.answers())) == 4 << 20
    bench.session.receive(b"")
    assert len(data_of(bench.answers())) == 4 << 20


# Rule 7: data out


def test_immediate_data_is_written_at_once() -> None:
    bench = ready()
    good(bench.send(bench.speaker.command(write_10(2, 2), expected=1024, write=True, data=b"w" * 1024)))
    assert bench.disk.data[1024:2048] == b"w" * 1024
    assert (bench.session.nexuses[0].writes, bench.session.nexuses[0].bytes_written) == (1, 1024)


def test_a_write_without_immediate_data_is_asked_for() -> None:
    bench = Bench(Speaker(keys=IPXE_KEYS))
    bench.log_in()
    (r2t,) = bench.send(bench.speaker.command(write_10(0, 8), expected=4096, write=True))
    assert isinstance(r2t, ReadyToTransfer)
    assert (r2t.offset, r2t.desired, r2t.r2tsn) == (0, 4096, 0)
    assert r2t.statsn == bench.session._statsn  # carried, not used up
    assert bench.send(pdu.DataOut(flags=0, itt=r2t.itt, ttt=r2t.ttt, data=b"a" * 2048)) == []
    good(bench.send(pdu.DataOut(itt=r2t.itt, ttt=r2t.ttt, datasn=1, offset=2048, data=b"b" * 2048)))
    assert bench.disk.data[:4096] == b"a" * 2048 + b"b" * 2048


def test_rule_7_unsolicited_data_up_to_first_burst_and_the_rest_by_several_r2ts() -> None:
    bench = ready(InitialR2T="No", FirstBurstLength="8192", MaxBurstLength="8192", MaxOutstandingR2T="2")
    content = bytes(range(256)) * 160  # 40,960 bytes
    command = bench.speaker.command(write_10(0, 80), expected=40960, write=True, data=content[:4096], final=False)
    assert bench.send(command) == []
    asks = bench.send(pdu.DataOut(itt=command.itt, data=content[4096:8192], offset=4096))
    assert [(a.offset, a.desired, a.r2tsn) for a in asks if isinstance(a, ReadyToTransfer)] == [
        (8192, 8192, 0),
        (16384, 8192, 1),
    ]
    answers: list[Pdu] = list(asks)
    while answers and isinstance(answers[0], ReadyToTransfer):
        ask = answers.pop(0)
        assert isinstance(ask, ReadyToTransfer)
        part = content[ask.offset : ask.offset + ask.desired]
        answers += bench.send(pdu.DataOut(itt=ask.itt, ttt=ask.ttt, offset=ask.offset, data=part))
    good(answers)
    assert bench.disk.data[:40960] == content


@settings(max_examples=60)
@given(
    st.booleans(),
    st.booleans(),
    st.sampled_from([512, 4096, 65536]),
    st.sampled_from([512, 8192, 262144]),
    st.integers(1, 4),
    st.integers(1, 300),
    st.data(),
)
def test_rule_7_a_write_arrives_whole_under_every_negotiation(
    initial_r2t: bool, immediate: bool, first: int, burst: int, outstanding: int, sectors: int, data: st.DataObject
) -> None:
    bench = ready(
        InitialR2T="Yes" if initial_r2t else "No",
        ImmediateData="Yes" if immediate else "No",
        FirstBurstLength=str(first),
        MaxBurstLength=str(burst),
        MaxOutstandingR2T=str(outstanding),
    )
    size = sectors * 512
    content = bytes(n * 7 % 256 for n in range(256)) * (size // 256)
    limit = min(first, burst, size)
    own = data.draw(st.integers(0, limit)) if immediate else 0
    unasked = not initial_r2t and own < limit
    answers = bench.send(
        bench.speaker.command(write_10(1, sectors), expected=size, write=True, data=content[:own], final=not unasked)
    )
    sn, at = 0, own
    while unasked:
        step = data.draw(st.integers(1, limit - at))
        unasked = at + step < limit
        answers += bench.send(
            pdu.DataOut(
                flags=0 if unasked else FINAL, itt=bench.speaker.itt, datasn=sn, offset=at, data=content[at : at + step]
            )
        )
        sn, at = sn + 1, at + step
    open_r2ts = 0
    while answers and isinstance(answers[0], ReadyToTransfer):
        ask = answers.pop(0)
        assert isinstance(ask, ReadyToTransfer)
        assert ask.desired <= burst
        open_r2ts = 1 + sum(isinstance(a, ReadyToTransfer) for a in answers)
        assert open_r2ts <= outstanding
        answers += bench.send(
            pdu.DataOut(
                itt=ask.itt, ttt=ask.ttt, offset=ask.offset, data=content[ask.offset : ask.offset + ask.desired]
            )
        )
    good(answers)
    assert bench.disk.data[512 : 512 + size] == content
    assert not any(bench.disk.data[512 + size :][:65536])
    assert bench.session._solicited == 0


@pytest.mark.parametrize(
    ("change", "sense"),
    [
        ({"datasn": 1}, (0xB, 0x0C0D)),
        ({"offset": 512}, (0xB, 0x0C0D)),
        ({"data": b"x" * 4608}, (0xB, 0x0C0D)),
        ({"data": b"x" * 512}, (0xB, 0x0C0D)),
        ({"ttt": 77777}, (0xB, 0x0C0D)),
        ({"ttt": NO_TAG}, (0xB, 0x0C0C)),
    ],
)
def test_rule_7_wrong_data_out_ends_the_command_and_writes_nothing(
    change: dict[str, object], sense: tuple[int, int]
) -> None:
    bench = ready(ImmediateData="No")
    (r2t,) = bench.send(bench.speaker.command(write_10(0, 8), expected=4096, write=True))
    assert isinstance(r2t, ReadyToTransfer)
    values: dict[str, object] = {"itt": r2t.itt, "ttt": r2t.ttt, "data": b"x" * 4096, **change}
    assert sense_of(bench.send(pdu.DataOut(**values))) == sense  # type: ignore[arg-type]
    assert not any(bench.disk.data)
    good(bench.send(bench.speaker.command(bytes(6))))


def test_immediate_data_that_was_not_negotiated_is_refused() -> None:
    bench = ready(ImmediateData="No")
    answers = bench.send(bench.speaker.command(write_10(0, 1), expected=512, write=True, data=b"x" * 512))
    assert sense_of(answers) == (0xB, 0x0C0C)
    assert not any(bench.disk.data)


def test_a_command_that_fails_early_still_takes_the_data_that_is_on_its_way() -> None:
    bench = ready(InitialR2T="No")
    beyond = bench.speaker.command(write_10(1 << 30, 8), expected=4096, write=True, final=False)
    assert bench.send(beyond) == []
    assert sense_of(bench.send(pdu.DataOut(itt=beyond.itt, data=b"x" * 4096))) == (5, 0x2100)
    assert bench.errors == {}


def test_r2ts_wait_for_room() -> None:
    bench = ready(ImmediateData="No", MaxBurstLength="1048576", MaxOutstandingR2T="4")
    asks = bench.send(*(bench.speaker.command(write_10(0, 8192), expected=4 << 20, write=True) for _ in range(4)))
    assert sum(a.desired for a in asks if isinstance(a, ReadyToTransfer)) == 8 << 20
    seen = 0
    while asks:
        ask = asks.pop(0)
        if isinstance(ask, ScsiResponse):
            seen += 1
            continue
        assert isinstance(ask, ReadyToTransfer)
        for number in range(4):
            last = number == 3
            asks += bench.send(
                pdu.DataOut(
                    flags=FINAL if last else 0,
                    itt=ask.itt,
                    ttt=ask.ttt,
                    datasn=number,
                    offset=ask.offset + number * 262144,
                    data=bytes(262144),
                )
            )
    assert seen == 4


# Rule 11: residuals


@pytest.mark.parametrize(
    ("expected", "flag", "residual"),
    [(4096, 0, 0), (4608, codes.UNDERFLOW, 512), (3584, codes.OVERFLOW, 512), (1, 4, 4095)],
)
def test_rule_11_a_read_moves_no_more_than_was_announced(expected: int, flag: int, residual: int) -> None:
    bench = ready()
    (answer,) = bench.send(bench.speaker.command(read_10(0, 8), expected=expected))
    assert isinstance(answer, DataIn)
    assert (answer.flags, answer.residual) == (FINAL | codes.STATUS | flag, residual)
    assert len(answer.data) == min(4096, expected)


@pytest.mark.parametrize(
    ("expected", "flag", "residual", "written"),
    [
        (1024, 0, 0, 1024),
        (1536, codes.UNDERFLOW, 512, 1024),
        (512, codes.OVERFLOW, 512, 512),
        (700, codes.OVERFLOW, 324, 512),
    ],
)
def test_rule_11_a_write_touches_no_more_than_was_announced(
    expected: int, flag: int, residual: int, written: int
) -> None:
    bench = ready()
    response = good(
        bench.send(bench.speaker.command(write_10(0, 2), expected=expected, write=True, data=b"w" * expected))
    )
    assert (response.flags, response.residual) == (FINAL | flag, residual)
    assert bench.disk.data[:2048] == b"w" * written + bytes(2048 - written)


# Rules 17, 24: logical units and attentions


def test_rule_24_the_first_command_hears_of_the_power_on_once() -> None:
    bench = Bench()
    bench.log_in(attentions=True)
    assert sense_of(bench.send(bench.speaker.command(bytes(6)))) == (6, 0x2900)
    good(bench.send(bench.speaker.command(bytes(6))))


def test_a_read_hears_of_the_power_on_too() -> None:
    bench = Bench()
    bench.log_in(attentions=True)
    assert sense_of(bench.send(bench.speaker.command(read_10(0, 8), expected=4096))) == (6, 0x2900)
    assert bench.disk.hits == 0


def test_inquiry_and_report_luns_do_not_take_the_attention_away() -> None:
    bench = Bench()
    bench.log_in(attentions=True)
    assert len(data_of(bench.send(bench.speaker.command(bytes.fromhex("120000002400"), expected=36)))) == 36
    data_of(bench.send(bench.speaker.command(bytes.fromhex("a00000000000000000200000"), expected=32)))
    assert sense_of(bench.send(bench.speaker.command(bytes(6)))) == (6, 0x2900)


def test_request_sense_tells_the_attention() -> None:
    bench = Bench()
    bench.log_in(attentions=True)
    data = data_of(bench.send(bench.speaker.command(bytes.fromhex("030000001200"), expected=18)))
    assert (data[2], data[12]) == (6, 0x29)
    good(bench.send(bench.speaker.command(bytes(6))))


def test_a_unit_that_is_not_there_says_so() -> None:
    bench = ready()
    inquiry = bytes.fromhex("120000002400")
    assert data_of(bench.send(bench.speaker.command(inquiry, expected=36, lun=5)))[0] == 0x7F
    assert sense_of(bench.send(bench.speaker.command(read_10(0, 8), expected=4096, lun=5))) == (5, 0x2500)
    listed = data_of(bench.send(bench.speaker.command(bytes.fromhex("a00000000000000000200000"), expected=32, lun=5)))
    assert listed[:4] == b"\0\0\0\x08"


def test_a_second_disk_is_a_disk_of_its_own() -> None:
    bench = Bench()
    other = type(bench.disk)()
    other.data[:512] = b"2" * 512
    bench.units[1] = unit(other, 1, (0, 1))
    bench.log_in()
    assert data_of(bench.send(bench.speaker.command(read_10(0, 1), expected=512, lun=1))) == b"2" * 512
    assert data_of(bench.send(bench.speaker.command(read_10(0, 1), expected=512))) == bytes(512)


# Rules 6, 13, 14: ping, logout, text


def test_a_ping_is_echoed() -> None:
    bench = ready()
    (pong,) = bench.send(pdu.NopOut(itt=77, cmdsn=bench.speaker.cmdsn, immediate=True, data=b"are you there"))
    assert isinstance(pong, pdu.NopIn)
    assert (pong.itt, pong.ttt, pong.data) == (77, NO_TAG, b"are you there")


def test_rule_6_a_silent_initiator_is_asked_with_a_tag_and_given_up_on_without_an_answer() -> None:
    bench = ready()
    bench.session.tick(1.0 + PING_AFTER)
    (ping,) = bench.answers()
    assert isinstance(ping, pdu.NopIn)
    assert ping.itt == NO_TAG
    assert ping.ttt != NO_TAG
    assert ping.statsn == bench.session._statsn
    bench.session.tick(1.0 + PING_AFTER + PING_PATIENCE - 1)
    assert not bench.session.closing
    bench.session.receive(pdu.NopOut(itt=NO_TAG, ttt=ping.ttt, immediate=True).encode(), 40.0)
    assert bench.answers() == []
    bench.session.tick(41.0)
    assert not bench.session.closing
    bench.session.tick(40.0 + PING_AFTER)
    bench.session.tick(40.0 + PING_AFTER + PING_PATIENCE)
    assert bench.session.closing


def test_rule_6_firmware_is_never_pinged_and_never_given_up_on() -> None:
    bench = Bench(Speaker(keys=IPXE_KEYS))
    bench.log_in()
    for hour in range(1, 5):
        bench.session.tick(hour * 3600.0)
    assert bench.answers() == []
    assert not bench.session.closing


def test_rule_13_logout_is_answered_and_ends_the_session() -> None:
    bench = ready()
    (bye,) = bench.send(pdu.LogoutRequest(itt=5, cmdsn=bench.speaker.cmdsn, immediate=True))
    assert isinstance(bye, pdu.LogoutResponse)
    assert bye.response == 0
    assert bench.session.closing == "logout"


def test_logout_is_answered_when_what_ran_is_dead() -> None:
    """Section 11.15: the response says that the cleanup is done. What lands later could undo a newer session's work."""
    bench = ready()
    bench.disk.slow = True
    command = bench.speaker.command(write_10(0, 8), expected=4096, write=True, data=b"x" * 4096)
    logout = pdu.LogoutRequest(itt=5, cmdsn=bench.speaker.cmdsn, immediate=True)
    assert bench.send(command, logout) == []
    assert bench.session.tasks, "it has not ended yet"
    (bye,) = bench.run()
    assert isinstance(bye, pdu.LogoutResponse)
    assert bench.session.closing == "logout"


def test_rule_14_discovery_lists_what_the_initiator_may_open_and_serves_no_disk() -> None:
    bench = Bench()
    bench.log_in(discovery=True)
    ask = pdu.TextRequest(itt=3, cmdsn=bench.speaker.cmdsn, immediate=True, data=b"SendTargets=All\0")
    (answer,) = bench.send(ask)
    assert answer.data == f"TargetName={bench.speaker.target}\0TargetAddress=127.0.0.1:3260,1\0".encode()
    bench.visible = []
    (answer,) = bench.send(ask)
    assert answer.data == b""
    (reject,) = bench.send(bench.speaker.command(read_10(0, 8), expected=4096))
    assert isinstance(reject, pdu.Reject)


def test_a_normal_session_may_ask_for_its_own_target_only() -> None:
    bench = ready()
    for question, count in ((b"SendTargets=\0", 1), (b"SendTargets=iqn.other\0", 0)):
        (answer,) = bench.send(pdu.TextRequest(itt=3, cmdsn=bench.speaker.cmdsn, immediate=True, data=question))
        assert answer.data.count(b"TargetName=") == count
    (answer,) = bench.send(pdu.TextRequest(itt=3, cmdsn=0, immediate=True, data=b"SendTargets=All\0"))
    assert answer.data == b"SendTargets=Reject\0"


def test_a_text_over_several_requests() -> None:
    bench = ready()
    first = pdu.TextRequest(flags=codes.CONTINUE, itt=3, cmdsn=0, immediate=True, data=b"SendTar")
    (partial,) = bench.send(first)
    assert isinstance(partial, pdu.TextResponse)
    assert partial.ttt != NO_TAG
    (answer,) = bench.send(pdu.TextRequest(itt=3, ttt=partial.ttt, cmdsn=0, immediate=True, data=b"gets=\0"))
    assert b"TargetName=" in answer.data


# Bad input


@pytest.mark.parametrize("opcode", [0x03, 0x07, 0x10, 0x1C, 0x20, 0x25, 0x31, 0x3F])
def test_an_opcode_that_may_not_come_is_rejected_and_ends_the_session(opcode: int) -> None:
    bench = ready()
    header = bytes([opcode]) + bytes(47)
    (reject,) = bench.send(header)
    assert isinstance(reject, pdu.Reject)
    assert reject.reason in (RejectReason.PROTOCOL_ERROR, RejectReason.NOT_SUPPORTED)
    assert reject.data == header
    assert bench.session.closing


def test_firmware_gets_no_reject() -> None:
    bench = Bench(Speaker(keys=IPXE_KEYS))
    bench.log_in()
    assert bench.send(b"\x1c" + bytes(47)) == []
    assert bench.session.closing


def test_a_segment_beyond_what_we_declared_is_not_waited_for() -> None:
    bench = ready()
    bench.send(b"\x00" + bytes(4) + (262145).to_bytes(3, "big") + bytes(40))
    assert bench.session.closing
    assert bench.errors["pdu_protocol_error"] == 1


def test_a_task_tag_in_use_is_rejected() -> None:
    bench = ready()
    bench.disk.slow = True
    command = bench.speaker.command(read_10(0, 8), expected=4096)
    bench.send(command)
    bench.speaker.itt = command.itt - 1
    (reject,) = bench.send(bench.speaker.command(read_10(0, 8), expected=4096))
    assert isinstance(reject, pdu.Reject)
    assert reject.reason == RejectReason.TASK_IN_PROGRESS
    bench.run()


def test_what_runs_when_a_session_ends_is_waited_for_and_not_answered() -> None:
    bench = ready()
    bench.disk.slow = True
    bench.send(bench.speaker.command(read_10(0, 8), expected=4096))
    bench.session.close("test")
    assert bench.session.busy
    assert bench.run() == []
    assert not bench.session.busy


@settings(max_examples=150)
@given(st.data())
def test_no_bytes_after_the_login_raise_anything_and_memory_stays_bounded(data: st.DataObject) -> None:
    bench = ready(InitialR2T="No")
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from([0x00, 0x01, 0x01, 0x01, 0x02, 0x04, 0x05, 0x05, 0x06, 0x41, 0x3A]))
        size = data.draw(st.sampled_from([0, 0, 4, 512, 5000]))
        header = bytearray(data.draw(st.binary(min_size=48, max_size=48)))
        header[0] = kind
        header[4] = data.draw(st.sampled_from([0, 0, 1]))
        header[5:8] = size.to_bytes(3, "big")
        header[8:16] = bytes(8)
        header[16:20] = data.draw(st.integers(1, 4)).to_bytes(4, "big")
        header[24:28] = (bench.session._exp_cmdsn + data.draw(st.integers(0, 2))).to_bytes(4, "big")
        if data.draw(st.booleans()):
            header[20:24] = (4096).to_bytes(4, "big")
            header[32:48] = write_10(0, 8).ljust(16, b"\0")
        bench.send(bytes(header) + bytes(header[4] * 4) + bytes(size + (-size & 3)))
        assert len(bench.session.tasks) <= WINDOW + 8
        if bench.session.closing:
            break
    bench.run()


def test_any_stream_cut_anywhere_is_answered_alike() -> None:
    def stream() -> tuple[Bench, bytes]:
        bench = ready(InitialR2T="No")
        bench.speaker.itt = 100
        write = bench.speaker.command(write_10(0, 16), expected=8192, write=True, data=b"a" * 4096, final=False)
        return bench, b"".join(
            p.encode()
            for p in (
                bench.speaker.command(read_10(0, 8), expected=4096),
                write,
                pdu.DataOut(itt=write.itt, offset=4096, data=b"b" * 4096),
                bench.speaker.command(read_10(0, 16), expected=8192),
                pdu.NopOut(itt=900, immediate=True, data=b"ping!"),
            )
        )

    bench, whole = stream()
    expected = [a.encode() for a in bench.send(whole)]
    assert len(expected) == 4
    for step in (1, 7, 47, 49, 4096, 5000):
        bench, whole = stream()
        answers: list[bytes] = []
        for at in range(0, len(whole), step):
            answers += [a.encode() for a in bench.send(whole[at : at + step])]
        assert answers == expected, step
