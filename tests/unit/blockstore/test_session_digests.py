"""Sessions with digests: what is agreed on, and what a damaged PDU costs (PROTOCOLS 2.2 #10; RFC 7143, section 7.8)."""

from __future__ import annotations

import pytest

from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire.iscsi_codes import FINAL, RejectReason
from bootlink_wire.iscsi_digest import Digests
from bootlink_wire.iscsi_pdu import DataIn, Pdu, ReadyToTransfer, Reject, ScsiResponse
from lab.iscsi import OPEN_ISCSI_KEYS, Speaker, read_10, write_10
from lab.session_bench import Bench

BOTH = Digests(header=True, data=True)


def ready(header: bool = True, data: bool = True, **keys: str) -> Bench:
    offers = dict(OPEN_ISCSI_KEYS) | keys
    offers |= {"HeaderDigest": "CRC32C,None" if header else "None", "DataDigest": "CRC32C" if data else "None"}
    bench = Bench(Speaker(keys=list(offers.items())))
    bench.log_in()
    assert (bench.session.digests or Digests()) == Digests(header, data)
    return bench


def damaged(sent: Pdu, at: int) -> bytes:
    """The PDU with digests, and a bit that flipped in this byte."""
    stream = bytearray(b"".join(BOTH.seal([sent.encode()])))
    stream[at] ^= 0x10
    return bytes(stream)


def status(answers: list[Pdu]) -> tuple[int, int, int]:
    (response,) = answers
    assert isinstance(response, ScsiResponse)
    if not response.status:
        return 0, 0, 0
    return response.status, response.data[4] & 15, response.data[14] << 8 | response.data[15]


@pytest.mark.parametrize(("header", "data"), [(True, False), (False, True), (True, True), (False, False)])
def test_rule_10_reads_writes_and_pings_under_every_agreement(header: bool, data: bool) -> None:
    bench = ready(header, data)
    content = bytes(range(256)) * 4
    write = bench.speaker.command(write_10(2, 2), expected=1024, write=True, data=content)
    assert status(bench.send(write)) == (0, 0, 0)
    (answer,) = bench.send(bench.speaker.command(read_10(2, 2), expected=1024))
    assert isinstance(answer, DataIn)
    assert answer.data == content
    (pong,) = bench.send(pdu.NopOut(itt=9, cmdsn=bench.speaker.cmdsn, immediate=True, data=b"ping!"))
    assert isinstance(pong, pdu.NopIn)
    assert pong.data == b"ping!"
    assert bench.errors == {}


def test_the_first_pdu_after_the_login_has_digests_even_if_it_was_sent_before_the_login_was_answered() -> None:
    bench = Bench(Speaker(keys=[("HeaderDigest", "CRC32C"), ("DataDigest", "CRC32C")]))
    ping = pdu.NopOut(itt=9, cmdsn=1, immediate=True, data=b"early")
    bench.send(bench.speaker.login(), b"".join(BOTH.seal([ping.encode()])))
    bench.session.admit(bench.units, None, 1)
    bench.session.resume()
    assert [type(a) for a in bench.answers()] == [pdu.LoginResponse, pdu.NopIn]


@pytest.mark.parametrize("at", [0, 1, 7, 20, 40, 47, 48, 51])
def test_rule_10_a_wrong_header_digest_ends_the_connection_without_an_answer(at: int) -> None:
    bench = ready()
    command = bench.speaker.command(write_10(0, 2), expected=1024, write=True, data=b"x" * 1024)
    assert bench.send(damaged(command, at)) == []
    assert bench.session.closing
    assert bench.errors == {"header_digest_wrong": 1}
    assert not any(bench.disk.data[:1024])


def test_rule_10_a_command_with_damaged_data_is_rejected_and_may_be_sent_again() -> None:
    bench = ready()
    command = bench.speaker.command(write_10(0, 2), expected=1024, write=True, data=b"x" * 1024)
    (reject,) = bench.send(damaged(command, 52 + 100))
    assert isinstance(reject, Reject)
    assert (reject.reason, reject.data) == (RejectReason.DATA_DIGEST, command.encode()[:48])
    assert not any(bench.disk.data[:1024])
    assert reject.expcmdsn == command.cmdsn, "its number is still due"
    assert status(bench.send(command)) == (0, 0, 0)
    assert bench.disk.data[:1024] == b"x" * 1024


def test_rule_10_a_command_that_was_rejected_and_never_comes_again_can_be_aborted() -> None:
    bench = ready()
    command = bench.speaker.command(write_10(0, 2), expected=1024, write=True, data=b"x" * 1024)
    bench.send(damaged(command, 60))
    later = bench.speaker.command(read_10(0, 8), expected=4096)
    assert bench.send(later) == []
    answers = bench.send(bench.speaker.task(1, referenced=command.itt, refcmdsn=command.cmdsn))
    assert [type(a) for a in answers] == [pdu.TaskResponse, DataIn]


def test_rule_10_damaged_data_ends_its_task_once_all_that_was_asked_for_is_through() -> None:
    bench = ready(ImmediateData="No", MaxBurstLength="4096", MaxOutstandingR2T="2")
    asks = bench.send(bench.speaker.command(write_10(0, 24), expected=12288, write=True))
    assert [a.offset for a in asks if isinstance(a, ReadyToTransfer)] == [0, 4096]
    first, second = (
        pdu.DataOut(flags=FINAL, itt=a.itt, ttt=a.ttt, offset=a.offset, data=b"d" * 4096)
        for a in asks
        if isinstance(a, ReadyToTransfer)
    )
    (reject,) = bench.send(damaged(first, 60))
    assert isinstance(reject, Reject)
    assert status(bench.send(second)) == (2, 0xB, 0x4705)
    assert not any(bench.disk.data[:12288])
    assert bench.session.tasks == {}
    assert bench.session._solicited == 0
    assert status(bench.send(bench.speaker.command(bytes(6)))) == (0, 0, 0)


def test_rule_10_damaged_unsolicited_data_waits_for_the_last_of_it() -> None:
    bench = ready(InitialR2T="No")
    command = bench.speaker.command(write_10(0, 24), expected=12288, write=True, data=b"a" * 4096, final=False)
    parts = [
        pdu.DataOut(flags=flags, itt=command.itt, datasn=number, offset=offset, data=b"b" * 4096)
        for number, (flags, offset) in enumerate([(0, 4096), (FINAL, 8192)])
    ]
    assert bench.send(command) == []
    assert [type(a) for a in bench.send(damaged(parts[0], 99))] == [Reject]
    assert status(bench.send(parts[1])) == (2, 0xB, 0x4705)
    assert not any(bench.disk.data[:12288])


def test_an_abort_ends_the_wait_for_what_was_asked_for() -> None:
    bench = ready(ImmediateData="No", MaxBurstLength="4096", MaxOutstandingR2T="2")
    command = bench.speaker.command(write_10(0, 16), expected=8192, write=True)
    asks = bench.send(command)
    assert isinstance(asks[0], ReadyToTransfer)
    bench.send(damaged(pdu.DataOut(itt=command.itt, ttt=asks[0].ttt, data=b"d" * 4096), 60))
    (done,) = bench.send(bench.speaker.task(1, referenced=command.itt, refcmdsn=command.cmdsn))
    assert isinstance(done, pdu.TaskResponse)
    assert done.response == 0
    assert bench.session.tasks == {}


def test_any_digested_stream_cut_anywhere_is_answered_alike() -> None:
    def answers(step: int) -> list[bytes]:
        bench = ready(InitialR2T="No")
        bench.speaker.itt = 100
        write = bench.speaker.command(write_10(0, 16), expected=8192, write=True, data=b"a" * 4096, final=False)
        pdus = (
            bench.speaker.command(read_10(0, 8), expected=4096),
            write,
            pdu.DataOut(itt=write.itt, offset=4096, data=b"b" * 4096),
            bench.speaker.command(read_10(0, 16), expected=8192),
            pdu.NopOut(itt=900, immediate=True, data=b"ping!"),
        )
        stream = b"".join(BOTH.seal([p.encode() for p in pdus]))
        found: list[bytes] = []
        for at in range(0, len(stream), step):
            bench.session.receive(stream[at : at + step], 1.0)
            found += [a.encode() for a in bench.answers()]
        return found

    whole = answers(1 << 20)
    assert len(whole) == 4
    for step in (1, 7, 49, 4096):
        assert answers(step) == whole, step
