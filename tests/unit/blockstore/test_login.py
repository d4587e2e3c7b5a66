"""The login phase, with what real initiators send (PROTOCOLS 2.1) and with what none should."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore.sequence import WINDOW
from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import iscsi_text as text
from bootlink_wire.iscsi_codes import FINAL, LoginStatus, Opcode
from lab.iscsi import IPXE_ISID, IPXE_KEYS, Speaker
from lab.session_bench import Bench

SECURITY_TO_OPERATIONAL = FINAL | 0 << 2 | 1
OPERATIONAL_TO_FULL = FINAL | 1 << 2 | 3
SECURITY_TO_FULL = FINAL | 0 << 2 | 3


def request(speaker: Speaker, flags: int, *pairs: tuple[str, str], **more: object) -> pdu.LoginRequest:
    return pdu.LoginRequest(
        flags=flags,
        isid=speaker.isid,
        itt=7,
        cmdsn=speaker.cmdsn,
        data=text.encode(list(pairs)),
        immediate=True,
        **more,  # type: ignore[arg-type]
    )


def names(speaker: Speaker) -> list[tuple[str, str]]:
    return [("InitiatorName", speaker.name), ("TargetName", speaker.target), ("SessionType", "Normal")]


def only(answers: list[pdu.Pdu]) -> pdu.LoginResponse:
    assert len(answers) == 1
    assert isinstance(answers[0], pdu.LoginResponse)
    return answers[0]


def refused(bench: Bench, *requests: pdu.Pdu | bytes) -> int:
    response = only(bench.send(*requests))
    assert bench.session.closing
    assert not bench.session.full_feature
    return response.status


def test_ipxe_logs_in_by_two_stages_and_is_known_as_firmware() -> None:
    bench = Bench(Speaker(isid=IPXE_ISID, keys=IPXE_KEYS))
    speaker = bench.speaker
    first = only(bench.send(request(speaker, SECURITY_TO_OPERATIONAL, *names(speaker), ("AuthMethod", "None"))))
    assert (first.flags, first.status, first.tsih) == (SECURITY_TO_OPERATIONAL, 0, 0)
    assert dict(text.parse(first.data)) == {"AuthMethod": "None", "TargetPortalGroupTag": "1"}
    bench.send(request(speaker, OPERATIONAL_TO_FULL, *IPXE_KEYS))
    assert bench.session.held
    bench.session.admit(bench.units, None, 5)
    bench.session.resume()
    last = only(bench.answers())
    assert (last.flags, last.status, last.tsih, last.statsn) == (OPERATIONAL_TO_FULL, 0, 5, first.statsn + 1)
    assert dict(text.parse(last.data))["MaxRecvDataSegmentLength"] == str(text.RECEIVE_LIMIT)
    assert "Reject" not in dict(text.parse(last.data)).values()
    assert bench.session.firmware
    assert (bench.session.parameters.receive_limit, bench.session.parameters.immediate_data) == (8192, False)


def test_open_iscsi_logs_in_with_one_request_and_is_no_firmware() -> None:
    bench = Bench()
    last = only(bench.log_in())
    assert last.maxcmdsn == last.expcmdsn + WINDOW - 1
    answers = dict(text.parse(last.data))
    assert answers["TargetPortalGroupTag"] == "1"
    assert (answers["InitialR2T"], answers["ImmediateData"], answers["MaxBurstLength"]) == ("No", "Yes", "1048576")
    assert not bench.session.firmware


def test_ipxe_is_known_by_its_keys_too() -> None:
    bench = Bench(Speaker(keys=IPXE_KEYS))
    bench.log_in()
    assert bench.session.firmware


def test_straight_from_security_to_full_feature() -> None:
    bench = Bench()
    bench.send(request(bench.speaker, SECURITY_TO_FULL, *names(bench.speaker), ("AuthMethod", "None")))
    assert bench.session.held


def test_a_text_may_spread_over_requests() -> None:
    bench = Bench()
    speaker = bench.speaker
    whole = text.encode([*names(speaker), *speaker.keys])
    flags = codes.CONTINUE | 1 << 2
    for part in (whole[:30], whole[30:90]):
        partial = only(bench.send(replace(request(speaker, flags), data=part)))
        assert (partial.flags & FINAL, partial.data, partial.status) == (0, b"", 0)
    bench.send(replace(request(speaker, OPERATIONAL_TO_FULL), data=whole[90:]))
    assert bench.session.held
    assert bench.session.admission is not None
    assert bench.session.admission.initiator == speaker.name


def test_a_login_that_stays_in_its_stage_goes_on() -> None:
    bench = Bench()
    speaker = bench.speaker
    stay = only(bench.send(request(speaker, 1 << 2, *names(speaker))))
    assert stay.flags == 1 << 2
    bench.send(request(speaker, OPERATIONAL_TO_FULL, ("ImmediateData", "No")))
    assert bench.session.held


@pytest.mark.parametrize(
    ("pairs", "status"),
    [
        ([("TargetName", "t")], LoginStatus.MISSING_PARAMETER),
        ([("InitiatorName", "i")], LoginStatus.MISSING_PARAMETER),
        ([("InitiatorName", "i" * 224), ("TargetName", "t")], LoginStatus.MISSING_PARAMETER),
        ([("InitiatorName", "i"), ("SessionType", "Other")], LoginStatus.SESSION_TYPE_NOT_SUPPORTED),
        ([("InitiatorName", "i"), ("TargetName", "t"), ("TargetName", "t")], LoginStatus.INITIATOR_ERROR),
        ([("InitiatorName", "i"), ("TargetName", "t"), ("AuthMethod", "CHAP")], LoginStatus.AUTHENTICATION_FAILURE),
    ],
)
def test_a_login_without_what_it_needs_is_refused(pairs: list[tuple[str, str]], status: int) -> None:
    bench = Bench()
    assert refused(bench, request(bench.speaker, SECURITY_TO_FULL, *pairs)) == status


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (FINAL | 1 << 2 | 0, LoginStatus.INVALID_DURING_LOGIN),  # backwards
        (FINAL | 1 << 2 | 1, LoginStatus.INVALID_DURING_LOGIN),
        (FINAL | 0 << 2 | 2, LoginStatus.INVALID_DURING_LOGIN),  # stage 2 does not exist
        (2 << 2, LoginStatus.INVALID_DURING_LOGIN),
        (3 << 2, LoginStatus.INVALID_DURING_LOGIN),
        (FINAL | codes.CONTINUE | 1, LoginStatus.INVALID_DURING_LOGIN),
    ],
)
def test_stages_that_do_not_follow_are_refused(flags: int, status: int) -> None:
    bench = Bench()
    assert refused(bench, request(bench.speaker, flags, *names(bench.speaker))) == status


def test_another_version_is_refused() -> None:
    bench = Bench()
    asked = request(bench.speaker, SECURITY_TO_FULL, *names(bench.speaker), version_min=1, version_max=1)
    assert refused(bench, asked) == LoginStatus.UNSUPPORTED_VERSION


def test_an_isid_that_changes_within_the_login_is_refused() -> None:
    bench = Bench()
    speaker = bench.speaker
    bench.send(request(speaker, SECURITY_TO_OPERATIONAL, *names(speaker)))
    speaker.isid = bytes(6)
    assert refused(bench, request(speaker, OPERATIONAL_TO_FULL)) == LoginStatus.INITIATOR_ERROR


def test_a_login_without_end_is_refused() -> None:
    bench = Bench()
    speaker = bench.speaker
    bench.send(request(speaker, 1 << 2, *names(speaker)))
    for _ in range(100):
        bench.send(request(speaker, 1 << 2))
    assert bench.session.closing


@pytest.mark.parametrize("stage", ["first", "between"])
@pytest.mark.parametrize("opcode", [o for o in range(0x40) if o != Opcode.LOGIN_REQUEST])
def test_rule_9_before_full_feature_any_other_pdu_ends_the_connection_with_a_login_reject(
    opcode: int, stage: str
) -> None:
    bench = Bench()
    if stage == "between":
        bench.send(request(bench.speaker, SECURITY_TO_OPERATIONAL, *names(bench.speaker)))
    header = bytes([opcode]) + bytes(15) + b"\0\0\0\x09" + bytes(28)
    response = only(bench.send(header))
    assert (response.status, response.itt) == (LoginStatus.INVALID_DURING_LOGIN, 9)
    assert bench.session.closing


def test_a_login_segment_beyond_8192_bytes_is_not_waited_for() -> None:
    bench = Bench()
    header = request(bench.speaker, SECURITY_TO_FULL).encode()[:48]
    bench.send(header[:5] + (8193).to_bytes(3, "big") + header[8:])
    assert bench.session.closing


def test_nothing_is_taken_while_a_login_waits_for_its_disk() -> None:
    bench = Bench()
    speaker = bench.speaker
    nop = pdu.NopOut(itt=99, cmdsn=speaker.cmdsn, immediate=True)
    assert bench.send(speaker.login(), nop) == []
    assert bench.send(nop) == []
    bench.session.admit(bench.units, None, 1)
    bench.session.resume()
    assert [type(a) for a in bench.answers()] == [pdu.LoginResponse, pdu.NopIn, pdu.NopIn]


def test_a_refusal_carries_its_status_and_ends_the_connection() -> None:
    bench = Bench()
    bench.send(bench.speaker.login())
    bench.session.refuse(LoginStatus.AUTHORIZATION_FAILURE, "no")
    assert only(bench.answers()).status == 0x0202
    assert bench.session.closing == "no"


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=120)), max_size=6))
def test_no_login_request_raises_anything(requests: list[tuple[int, bytes]]) -> None:
    bench = Bench()
    for flags, data in requests:
        bench.session.receive(replace(request(bench.speaker, flags), data=data).encode())
    bench.answers()
