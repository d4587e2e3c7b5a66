"""CHAP at the login (PROTOCOLS 2.2 #15; RFC 7143, section 12.1.3): what is a proof, and what is none."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootlink_blockstore.chap import Chap, ChapError
from bootlink_events import BootId, ClusterKey
from bootlink_wire import iscsi_chap
from bootlink_wire import iscsi_text as text
from bootlink_wire.iscsi_chap import ALGORITHMS, decode, encode
from bootlink_wire.iscsi_codes import FINAL, LoginStatus
from bootlink_wire.iscsi_pdu import LoginRequest, LoginResponse
from lab.iscsi import IPXE_ISID, IPXE_KEYS, OPEN_ISCSI_KEYS, Speaker
from lab.session_bench import Bench

MAC = "52:54:00:00:00:01"
BOOT = BootId.mint()
KNOWN = ClusterKey(b"k" * 32).credentials(MAC, BOOT)
STAY, TO_OPERATIONAL, TO_FULL = 0, FINAL | 0 << 2 | 1, FINAL | 1 << 2 | 3


class Prover:
    """An initiator's side of a login with CHAP, over a session on the bench."""

    def __init__(self, *, mutual: bool = False, firmware: bool = False) -> None:
        speaker = Speaker(isid=IPXE_ISID, keys=IPXE_KEYS) if firmware else Speaker(keys=OPEN_ISCSI_KEYS)
        self.bench = Bench(speaker)
        self.bench.exchange = Chap(KNOWN, mutual=mutual)
        self.status = 0

    def say(self, flags: int, *pairs: tuple[str, str], discovery: bool = False) -> dict[str, str]:
        """What one request is answered."""
        speaker = self.bench.speaker
        request = LoginRequest(
            flags=flags, isid=speaker.isid, itt=7, cmdsn=1, data=text.encode(list(pairs)), immediate=True
        )
        answers = self.bench.send(request)
        if not answers:
            return {}
        (response,) = answers
        assert isinstance(response, LoginResponse)
        self.status, self.flags = response.status, response.flags
        return dict(text.parse(response.data))

    def offer(self, methods: str = "CHAP,None", *, flags: int = STAY) -> dict[str, str]:
        speaker = self.bench.speaker
        names = [("InitiatorName", speaker.name), ("TargetName", speaker.target), ("SessionType", "Normal")]
        return self.say(flags, *names, ("AuthMethod", methods))

    def challenge(self, algorithms: str = "5") -> dict[str, str]:
        assert self.offer()["AuthMethod"] == "CHAP"
        return self.say(STAY, ("CHAP_A", algorithms))

    def proof(self, asked: dict[str, str], secret: str = KNOWN.secret, *, form: str = "0x") -> tuple[str, str]:
        answer = ALGORITHMS[int(asked["CHAP_A"])].response(
            int(asked["CHAP_I"]), secret.encode(), decode(asked["CHAP_C"])
        )
        digits = answer.hex() if form.lower() == "0x" else base64.b64encode(answer).decode()
        return "CHAP_R", form + digits

    def refused(self) -> int:
        assert self.bench.session.closing
        assert self.bench.session.admission is None
        return self.status


# Who is let in


@pytest.mark.parametrize("number", [5, 6, 7, 8])
@pytest.mark.parametrize("form", ["0x", "0X", "0b", "0B"])
def test_rule_15_every_algorithm_and_both_forms_of_a_value_in_either_case(number: int, form: str) -> None:
    prover = Prover()
    asked = prover.challenge(str(number))
    assert (asked["CHAP_A"], len(decode(asked["CHAP_C"]))) == (str(number), ALGORITHMS[number].size)
    assert prover.say(TO_OPERATIONAL, ("CHAP_N", KNOWN.user), prover.proof(asked, form=form)) == {}
    assert (prover.status, prover.flags) == (0, TO_OPERATIONAL)
    prover.say(TO_FULL, *OPEN_ISCSI_KEYS)
    assert prover.bench.session.held
    admission = prover.bench.session.admission
    assert admission is not None
    assert admission.proved


def test_rule_15_the_initiators_order_of_preference_holds() -> None:
    for offer, chosen in (("8,7,6,5", "8"), ("5,7", "5"), ("99,6", "6"), ("MD5,7", "7")):
        assert Prover().challenge(offer)["CHAP_A"] == chosen


def test_rule_15_ipxe_logs_in_as_it_does() -> None:
    """It asks to move on in each of its requests, and is held until it has proved itself."""
    prover = Prover(firmware=True)
    assert prover.offer("CHAP", flags=TO_OPERATIONAL)["AuthMethod"] == "CHAP"
    assert not prover.flags & FINAL
    asked = prover.say(TO_OPERATIONAL, ("CHAP_A", "5"))
    assert not prover.flags & FINAL
    prover.say(TO_OPERATIONAL, ("CHAP_N", KNOWN.user), prover.proof(asked))
    assert prover.flags == TO_OPERATIONAL


def test_rule_15_mutual_the_target_proves_itself_by_another_secret() -> None:
    prover = Prover(mutual=True)
    own = bytes(range(200))
    asked = prover.challenge("7")
    answer = prover.say(
        TO_OPERATIONAL,
        ("CHAP_N", KNOWN.user),
        prover.proof(asked),
        ("CHAP_I", "201"),
        ("CHAP_C", encode(own)),
    )
    assert answer["CHAP_N"] == "bootlink"
    assert decode(answer["CHAP_R"]) == hashlib.sha256(bytes([201]) + KNOWN.target_secret.encode() + own).digest()
    assert KNOWN.secret != KNOWN.target_secret
    assert prover.flags == TO_OPERATIONAL


@pytest.mark.parametrize("size", [1, 255, 256, 1024])
def test_rule_15_a_challenge_of_up_to_1024_bytes_is_answered_whole(size: int) -> None:
    prover = Prover(mutual=True)
    own = b"c" * size
    asked = prover.challenge()
    answer = prover.say(STAY, ("CHAP_N", KNOWN.user), prover.proof(asked), ("CHAP_I", "0"), ("CHAP_C", encode(own)))
    assert decode(answer["CHAP_R"]) == hashlib.md5(b"\0" + KNOWN.target_secret.encode() + own).digest()


def test_rule_15_every_login_has_a_challenge_and_an_identifier_of_its_own() -> None:
    seen = [Prover().challenge("7") for _ in range(64)]
    assert len({asked["CHAP_C"] for asked in seen}) == 64
    assert len({asked["CHAP_I"] for asked in seen}) > 32


# Who is not


def test_rule_15_a_wrong_secret_is_refused_and_there_is_no_second_try() -> None:
    prover = Prover()
    asked = prover.challenge()
    prover.say(STAY, ("CHAP_N", KNOWN.user), prover.proof(asked, "wrong secret 123"))
    assert prover.refused() == LoginStatus.AUTHENTICATION_FAILURE
    assert prover.bench.unproved == ["its CHAP name or response is wrong"]
    assert prover.say(STAY, ("CHAP_N", KNOWN.user), prover.proof(asked)) == {}


def test_rule_15_another_name_is_refused_whatever_its_response() -> None:
    prover = Prover()
    prover.say(STAY, ("CHAP_N", "somebody"), prover.proof(prover.challenge()))
    assert prover.refused() == LoginStatus.AUTHENTICATION_FAILURE


def test_rule_15_a_response_of_an_earlier_login_is_worth_nothing() -> None:
    first = Prover()
    old = first.proof(first.challenge())
    second = Prover()
    second.challenge()
    second.say(STAY, ("CHAP_N", KNOWN.user), old)
    assert second.refused() == LoginStatus.AUTHENTICATION_FAILURE


def test_rule_15_our_own_challenge_sent_back_is_refused() -> None:
    prover = Prover(mutual=True)
    asked = prover.challenge()
    prover.say(
        STAY, ("CHAP_N", KNOWN.user), prover.proof(asked), ("CHAP_I", asked["CHAP_I"]), ("CHAP_C", asked["CHAP_C"])
    )
    assert prover.refused() == LoginStatus.AUTHENTICATION_FAILURE


def test_rule_15_nobody_is_proved_anything_before_proving_himself() -> None:
    prover = Prover(mutual=True)
    asked = prover.challenge()
    said = prover.say(
        STAY,
        ("CHAP_N", KNOWN.user),
        prover.proof(asked, "wrong secret 123"),
        ("CHAP_I", "1"),
        ("CHAP_C", "0x0102"),
    )
    assert said == {}
    assert prover.refused() == LoginStatus.AUTHENTICATION_FAILURE


def test_rule_15_a_proof_of_ours_is_not_given_where_the_link_asks_for_one_way() -> None:
    prover = Prover()
    asked = prover.challenge()
    prover.say(STAY, ("CHAP_N", KNOWN.user), prover.proof(asked), ("CHAP_I", "1"), ("CHAP_C", "0x0102"))
    assert prover.refused() == LoginStatus.AUTHENTICATION_FAILURE


def test_rule_15_no_authentication_is_refused_where_chap_is_asked_for() -> None:
    prover = Prover()
    prover.offer("None")
    assert prover.refused() == LoginStatus.AUTHENTICATION_FAILURE


@pytest.mark.parametrize("flags", [TO_FULL, 1 << 2, FINAL | 0 << 2 | 3, TO_OPERATIONAL])
def test_rule_15_nothing_leads_past_the_security_stage(flags: int) -> None:
    prover = Prover()
    speaker = prover.bench.speaker
    names = [("InitiatorName", speaker.name), ("TargetName", speaker.target)]
    prover.say(flags, *names, *OPEN_ISCSI_KEYS)
    assert prover.refused() == LoginStatus.AUTHENTICATION_FAILURE
    assert not prover.bench.session.held


@pytest.mark.parametrize("flags", [TO_OPERATIONAL, FINAL | 0 << 2 | 3])
def test_rule_15_who_asks_to_move_on_without_a_proof_is_held_in_the_stage(flags: int) -> None:
    prover = Prover()
    prover.offer(flags=flags)
    assert prover.flags == 0
    prover.say(TO_OPERATIONAL)
    assert prover.flags == 0
    prover.say(TO_FULL, *OPEN_ISCSI_KEYS)
    assert prover.refused() == LoginStatus.INVALID_DURING_LOGIN


def test_rule_15_no_algorithm_in_common_is_refused() -> None:
    prover = Prover()
    prover.challenge("4,99,MD5")
    assert prover.refused() == LoginStatus.AUTHENTICATION_FAILURE


OVERSIZE = "0x" + "ab" * 1025
RESPONSE = ("CHAP_R", "0x" + "ab" * 16)


@pytest.mark.parametrize(
    "pairs",
    [
        [("CHAP_N", "pc"), ("CHAP_R", OVERSIZE)],
        [("CHAP_N", "pc"), ("CHAP_R", "0b" + base64.b64encode(bytes(1025)).decode())],
        [("CHAP_N", "pc"), ("CHAP_R", "0x")],
        [("CHAP_N", "pc"), ("CHAP_R", "0x no hex")],
        [("CHAP_N", "pc"), ("CHAP_R", "12345")],
        [("CHAP_N", "pc"), ("CHAP_R", "0b====")],
        [("CHAP_N", "pc")],
        [RESPONSE],
        [("CHAP_N", "pc"), RESPONSE, ("CHAP_I", "1")],
        [("CHAP_A", "5")],
        [("CHAP_N", "pc"), RESPONSE, RESPONSE],
        [("CHAP_N", "pc"), RESPONSE, ("CHAP_N", "pc")],
        [("AuthMethod", "CHAP")],
        [("InitiatorName", "iqn.other")],
    ],
    ids=lambda pairs: "+".join(f"{k}={v[:12]}" for k, v in pairs),
)
def test_rule_15_what_breaks_the_exchange_ends_the_login(pairs: list[tuple[str, str]]) -> None:
    prover = Prover()
    prover.challenge()
    prover.say(STAY, *pairs)
    assert prover.refused() == LoginStatus.INITIATOR_ERROR


@pytest.mark.parametrize(
    "own",
    [
        [("CHAP_I", "256"), ("CHAP_C", "0x01")],
        [("CHAP_I", "-1"), ("CHAP_C", "0x01")],
        [("CHAP_I", "9" * 4000), ("CHAP_C", "0x01")],
        [("CHAP_I", "1"), ("CHAP_C", OVERSIZE)],
        [("CHAP_I", "1"), ("CHAP_C", "0x")],
    ],
    ids=["256", "negative", "long", "oversize", "empty"],
)
def test_rule_15_a_challenge_that_is_none_ends_the_login(own: list[tuple[str, str]]) -> None:
    prover = Prover(mutual=True)
    asked = prover.challenge()
    assert prover.say(STAY, ("CHAP_N", KNOWN.user), prover.proof(asked), *own) == {}
    assert prover.refused() == LoginStatus.INITIATOR_ERROR


def test_chap_where_none_is_asked_for_is_no_exchange() -> None:
    prover = Prover()
    prover.bench.exchange = None
    assert prover.offer()["AuthMethod"] == "None"
    prover.say(STAY, ("CHAP_A", "5"))
    assert prover.refused() == LoginStatus.INITIATOR_ERROR


# The parts


@pytest.mark.parametrize(
    ("value", "decoded"),
    [("0x0aFF", "0aff"), ("0Xabc", "0abc"), ("0bAQID", "010203"), ("0BAQI=", "0102"), ("0bAQI", "0102")],
)
def test_a_binary_value_is_read(value: str, decoded: str) -> None:
    assert decode(value).hex() == decoded


@given(st.binary(min_size=1, max_size=1024))
def test_every_binary_value_comes_back(value: bytes) -> None:
    assert decode(encode(value)) == value
    assert decode("0b" + base64.b64encode(value).decode()) == value


@settings(max_examples=300)
@given(st.text(max_size=40), st.text(max_size=40))
def test_no_text_of_the_exchange_raises_anything_else(first: str, second: str) -> None:
    for keys in ({"CHAP_A": first}, {"CHAP_N": first, "CHAP_R": second}, {"CHAP_C": first}):
        chap = Chap(KNOWN, mutual=True)
        chap.step({"CHAP_A": "5"})
        with pytest.raises(ChapError):
            chap.step(keys)
    with pytest.raises(ChapError):
        Chap(KNOWN, mutual=True).step({"CHAP_A": "x" + first})


def test_the_reference_vector_of_md5_chap() -> None:
    """By hand: the hash over identifier, secret, challenge in this order (RFC 1994, section 4.1)."""
    assert iscsi_chap.ALGORITHMS[5].response(1, b"secret", b"\x02\x03") == hashlib.md5(b"\x01secret\x02\x03").digest()
