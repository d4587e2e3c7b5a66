"""iSCSI text and negotiation, key by key (RFC 7143, section 13)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootlink_wire.iscsi_text import Negotiation, TextError, encode, parse
from lab.iscsi import IPXE_KEYS, OPEN_ISCSI_KEYS

ANSWERS = [
    # key, offer, answer; None: not answered
    ("MaxConnections", "8", "1"),
    ("InitialR2T", "Yes", "Yes"),
    ("InitialR2T", "No", "No"),
    ("ImmediateData", "Yes", "Yes"),
    ("ImmediateData", "No", "No"),
    ("MaxBurstLength", "262144", "262144"),
    ("MaxBurstLength", "16776192", "1048576"),
    ("FirstBurstLength", "262144", "65536"),
    ("FirstBurstLength", "512", "512"),
    ("MaxOutstandingR2T", "1", "1"),
    ("MaxOutstandingR2T", "16", "4"),
    ("DefaultTime2Wait", "2", "2"),
    ("DefaultTime2Wait", "0", "0"),
    ("DefaultTime2Retain", "20", "0"),
    ("ErrorRecoveryLevel", "2", "0"),
    ("DataPDUInOrder", "No", "Yes"),
    ("DataSequenceInOrder", "No", "Yes"),
    ("HeaderDigest", "CRC32C,None", "CRC32C"),  # the initiator's order of preference holds
    ("HeaderDigest", "None,CRC32C", "None"),
    ("DataDigest", "None", "None"),
    ("DataDigest", "CRC32C", "CRC32C"),
    ("HeaderDigest", "MD5,CRC64", "Reject"),
    ("AuthMethod", "CHAP,None", "None"),
    ("IFMarker", "No", "No"),
    ("MaxRecvDataSegmentLength", "8192", "262144"),  # declared in return, not agreed
    ("MaxRecvDataSegmentLength", "0x2000", "262144"),
    ("MaxBurstLength", "511", "Reject"),
    ("MaxBurstLength", "-1", "Reject"),
    ("MaxBurstLength", "many", "Reject"),
    ("InitialR2T", "yes", "Reject"),
    ("X-com.example", "1", "NotUnderstood"),
    ("InitiatorAlias", "pc", None),
]


@pytest.mark.parametrize(("key", "offer", "answer"), ANSWERS)
def test_rule_8_each_key_is_answered_by_its_row(key: str, offer: str, answer: str | None) -> None:
    assert Negotiation().answer([(key, offer)]) == ([] if answer is None else [(key, answer)])


def test_what_is_not_offered_keeps_the_default_of_the_rfc() -> None:
    values = Negotiation()
    assert values.number("MaxRecvDataSegmentLength") == 8192
    assert values.number("FirstBurstLength") == 65536
    assert values.flag("InitialR2T")
    assert values.flag("ImmediateData")


def test_nothing_that_ipxe_offers_is_rejected() -> None:
    values = Negotiation()
    answers = dict(values.answer(IPXE_KEYS))
    assert not {"Reject", "NotUnderstood"} & set(answers.values())
    assert (values.number("MaxRecvDataSegmentLength"), values.flag("ImmediateData")) == (8192, False)
    assert set(answers) == {key for key, _ in IPXE_KEYS}


def test_nothing_that_open_iscsi_offers_is_rejected() -> None:
    values = Negotiation()
    assert not {"Reject", "NotUnderstood"} & {value for _, value in values.answer(OPEN_ISCSI_KEYS)}
    assert values.number("MaxRecvDataSegmentLength") == 262144
    assert not values.flag("InitialR2T")


def test_rule_8_a_key_that_comes_twice_ends_the_login() -> None:
    values = Negotiation()
    values.answer([("MaxBurstLength", "4096")])
    with pytest.raises(TextError, match="twice"):
        values.answer([("MaxBurstLength", "4096")])


def test_keys_of_a_normal_session_are_irrelevant_in_discovery() -> None:
    values = Negotiation()
    values.discovery = True
    assert values.answer([("MaxBurstLength", "4096"), ("ErrorRecoveryLevel", "0")]) == [
        ("MaxBurstLength", "Irrelevant"),
        ("ErrorRecoveryLevel", "0"),
    ]


def test_our_own_length_is_declared_once() -> None:
    values = Negotiation()
    assert values.declarations() == [("MaxRecvDataSegmentLength", "262144")]
    assert values.answer([("MaxRecvDataSegmentLength", "4096")]) == []
    assert values.number("MaxRecvDataSegmentLength") == 4096
    assert values.declarations() == []


def test_full_feature_phase_lets_few_keys_change() -> None:
    values = Negotiation()
    assert values.renegotiate([("MaxBurstLength", "4096"), ("MaxRecvDataSegmentLength", "4096")]) == [
        ("MaxBurstLength", "Reject"),
        ("MaxRecvDataSegmentLength", "262144"),
    ]
    assert values.number("MaxRecvDataSegmentLength") == 4096


PAIRS = st.lists(
    st.tuples(
        st.text("abcXYZ-", min_size=1, max_size=63), st.text(st.characters(exclude_characters="\0"), max_size=60)
    ),
    max_size=20,
)


@given(PAIRS)
def test_what_is_encoded_is_parsed(pairs: list[tuple[str, str]]) -> None:
    try:
        encoded = encode(pairs)
    except UnicodeEncodeError:  # a lone surrogate
        return
    assert parse(encoded) == pairs


@given(st.binary(max_size=300))
def test_any_bytes_are_a_text_or_a_text_error(data: bytes) -> None:
    with contextlib.suppress(TextError):
        Negotiation().answer(parse(data))


@pytest.mark.parametrize("data", [b"novalue\0", b"=x\0", b"a=1\0\0b=2\0", b"k" * 64 + b"=1\0", b"a=\xff\0"])
def test_what_is_no_text_is_refused(data: bytes) -> None:
    with pytest.raises(TextError):
        parse(data)


def test_a_text_of_too_many_pairs_is_refused() -> None:
    with pytest.raises(TextError, match="more than"):
        parse(b"a=1\0" * 129)
