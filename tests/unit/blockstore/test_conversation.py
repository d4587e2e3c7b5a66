"""Text over several PDUs in both directions, logins with long answers, and requests to log out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore.login import SEGMENT_LIMIT
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import iscsi_text as text
from bootlink_wire.iscsi_codes import CONTINUE, FINAL, NO_TAG, LoginStatus
from bootlink_wire.iscsi_pdu import AsyncMessage, Pdu, Reject, TextResponse
from lab.iscsi import IPXE_KEYS, OPEN_ISCSI_KEYS, Speaker
from lab.session_bench import Bench

TARGETS = [(f"iqn.2026-11.io.bootlink:52-54-00-00-{n // 256:02x}-{n % 256:02x}", "127.0.0.1:3260,1") for n in range(40)]
WHOLE = "".join(f"TargetName={name}\0TargetAddress={address}\0" for name, address in TARGETS).encode()


def discovery(limit: int = 512) -> Bench:
    bench = Bench(Speaker(keys=[("MaxRecvDataSegmentLength", str(limit))]))
    bench.visible = TARGETS
    bench.log_in(discovery=True)
    return bench


def ask(data: bytes = b"SendTargets=All\0", *, ttt: int = NO_TAG, flags: int = FINAL, itt: int = 3) -> pdu.TextRequest:
    return pdu.TextRequest(flags=flags, itt=itt, ttt=ttt, cmdsn=1, immediate=True, data=data)


def said(answers: list[Pdu]) -> TextResponse:
    (answer,) = answers
    assert isinstance(answer, TextResponse)
    return answer


def test_rule_14_an_answer_longer_than_one_pdu_is_sent_in_pieces_as_the_initiator_asks() -> None:
    bench = discovery()
    pieces = [said(bench.send(ask()))]
    while pieces[-1].flags & CONTINUE:
        assert pieces[-1].ttt != NO_TAG
        assert not pieces[-1].flags & FINAL
        assert len(pieces[-1].data) == 512
        pieces.append(said(bench.send(ask(b"", ttt=pieces[-1].ttt))))
    assert (pieces[-1].flags, pieces[-1].ttt) == (FINAL, NO_TAG)
    assert b"".join(piece.data for piece in pieces) == WHOLE
    assert len(pieces) > 5


@settings(max_examples=50)
@given(st.lists(st.integers(1, 15), max_size=6))
def test_a_question_in_any_pieces_is_one_question(cuts: list[int]) -> None:
    bench = discovery(262_144)
    question, ttt = b"SendTargets=All\0", NO_TAG
    for cut in cuts:
        piece, question = question[:cut], question[cut:]
        partial = said(bench.send(ask(piece, ttt=ttt, flags=CONTINUE)))
        assert (partial.flags, partial.data) == (0, b"")
        ttt = partial.ttt
        assert ttt != NO_TAG
    answer = said(bench.send(ask(question, ttt=ttt)))
    assert (answer.flags, answer.data) == (FINAL, WHOLE)


def test_a_question_without_the_final_bit_is_answered_without_it() -> None:
    bench = discovery(262_144)
    open_ended = said(bench.send(ask(flags=0)))
    assert (open_ended.flags, open_ended.data) == (0, WHOLE)
    closing = said(bench.send(ask(b"", ttt=open_ended.ttt)))
    assert (closing.flags, closing.ttt, closing.data) == (FINAL, NO_TAG, b"")


@pytest.mark.parametrize("wrong", [{"ttt": 99}, {"itt": 4}])
def test_a_text_of_no_exchange_is_rejected_and_the_session_goes_on(wrong: dict[str, Any]) -> None:
    bench = discovery()
    first = said(bench.send(ask()))
    (reject,) = bench.send(replace(ask(b"", ttt=first.ttt), **wrong))
    assert isinstance(reject, Reject)
    assert said(bench.send(ask())).data == first.data


def test_who_speaks_before_the_whole_answer_was_heard_is_rejected() -> None:
    bench = discovery()
    first = said(bench.send(ask()))
    assert isinstance(bench.send(ask(b"SendTargets=All\0", ttt=first.ttt))[0], Reject)
    assert bench.errors["text_out_of_turn"] == 1


def test_a_new_question_ends_the_former_exchange() -> None:
    bench = discovery()
    first = said(bench.send(ask()))
    again = said(bench.send(ask()))
    assert again.data == first.data
    assert isinstance(bench.send(ask(b"", ttt=first.ttt))[0], Reject)


def test_a_text_without_end_ends_the_session_and_is_not_kept() -> None:
    bench = discovery(262_144)
    ttt = NO_TAG
    for _ in range(200):
        answers = bench.send(ask(b"x" * 1000, ttt=ttt, flags=CONTINUE))
        assert len(bench.session._question) <= 66_000
        if bench.session.closing:
            break
        ttt = said(answers).ttt
    assert bench.session.closing == "the text is too long"


def test_firmware_whose_text_is_malformed_is_not_sent_a_reject() -> None:
    bench = Bench(Speaker(keys=IPXE_KEYS))
    bench.log_in()
    assert bench.send(ask(b"no key\0")) == []
    assert bench.session.closing


# Logins


def test_rule_8_a_login_answer_longer_than_one_pdu_is_sent_in_pieces() -> None:
    bench = Bench()
    speaker = bench.speaker
    unknown = [(f"X-{'k' * 58}{n:03}", "?") for n in range(120)]
    names = [("InitiatorName", speaker.name), ("TargetName", speaker.target)]
    whole = text.encode([*names, *unknown[:50]]), text.encode(unknown[50:])

    def request(flags: int, data: bytes) -> pdu.LoginRequest:
        return pdu.LoginRequest(flags=flags, isid=speaker.isid, itt=7, cmdsn=1, data=data, immediate=True)

    bench.send(request(CONTINUE | 1 << 2, whole[0]))
    to_full = FINAL | 1 << 2 | 3
    (first,) = bench.send(request(to_full, whole[1]))
    answers = [first]
    assert isinstance(first, pdu.LoginResponse)
    assert (first.flags, first.status, len(first.data)) == (CONTINUE | 1 << 2, 0, SEGMENT_LIMIT)
    bench.send(request(to_full, b""))
    assert bench.session.held
    bench.session.admit(bench.units, None, 1)
    answers += bench.answers()
    data = b"".join(answer.data for answer in answers)
    assert dict(text.parse(data)).items() >= {name: "NotUnderstood" for name, _ in unknown}.items()
    assert all(len(answer.data) <= SEGMENT_LIMIT for answer in answers)


def test_who_speaks_before_the_whole_login_answer_was_heard_is_refused() -> None:
    bench = Bench()
    speaker = bench.speaker
    unknown = [(f"X-{'k' * 58}{n:03}", "?") for n in range(124)]
    data = text.encode([("InitiatorName", speaker.name), ("TargetName", speaker.target), *unknown])
    assert len(data) > SEGMENT_LIMIT

    def request(flags: int, data: bytes) -> pdu.LoginRequest:
        return pdu.LoginRequest(flags=flags, isid=speaker.isid, itt=7, cmdsn=1, data=data, immediate=True)

    bench.send(request(CONTINUE | 1 << 2, data[:SEGMENT_LIMIT]))
    bench.send(request(1 << 2, data[SEGMENT_LIMIT:]))
    (refusal,) = bench.send(request(1 << 2, b"ErrorRecoveryLevel=0\0"))
    assert isinstance(refusal, pdu.LoginResponse)
    assert refusal.status == LoginStatus.INITIATOR_ERROR


@pytest.mark.parametrize(
    ("key", "offer", "agreed"),
    [("MaxConnections", "8", "1"), ("ErrorRecoveryLevel", "2", "0"), ("MaxOutstandingR2T", "64", "4")],
)
def test_rule_16_what_is_more_than_we_have_is_negotiated_down(key: str, offer: str, agreed: str) -> None:
    bench = Bench(Speaker(keys=list((dict(OPEN_ISCSI_KEYS) | {key: offer}).items())))
    (response,) = bench.log_in()
    assert dict(text.parse(response.data))[key] == agreed
    assert bench.session.full_feature


# Asking to log out


def test_rule_13_an_operating_system_is_asked_to_log_out_within_a_time() -> None:
    bench = Bench()
    bench.log_in()
    statsn = bench.session._statsn
    assert bench.session.ask_to_log_out(3)
    (message,) = bench.answers()
    assert isinstance(message, AsyncMessage)
    assert (message.event, message.parameter3, message.itt, message.statsn) == (1, 3, NO_TAG, statsn)
    assert bench.session._statsn == statsn + 1
    (bye,) = bench.send(pdu.LogoutRequest(itt=5, cmdsn=bench.speaker.cmdsn, immediate=True))
    assert isinstance(bye, pdu.LogoutResponse)
    assert bench.session.closing == "logout"


def test_rule_13_firmware_and_who_has_not_logged_in_is_never_asked() -> None:
    firmware = Bench(Speaker(keys=IPXE_KEYS))
    firmware.log_in()
    stranger = Bench()
    for bench in (firmware, stranger):
        assert not bench.session.ask_to_log_out(3)
        assert bench.answers() == []


def test_rule_14_a_discovery_session_takes_text_logout_and_ping_and_nothing_else() -> None:
    for wrong in ("command", "task"):
        bench = discovery()
        assert isinstance(bench.send(pdu.NopOut(itt=9, cmdsn=1, immediate=True))[0], pdu.NopIn)
        sent = bench.speaker.command(bytes(6)) if wrong == "command" else bench.speaker.task(6)
        (reject,) = bench.send(sent)
        assert isinstance(reject, Reject)
        assert bench.session.closing
