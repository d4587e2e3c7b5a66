"""iSCSI text: key=value pairs, and how each key is negotiated (RFC 7143, sections 6 and 13).

Theory of operation. A text is pairs `key=value`, each ended by a NUL. What a value means, how an offer is answered
and what follows from it is one row per key in `KEYS`:

    DECLARE   each side states its own; it is not answered, but ours is stated once in return
    MINIMUM   a number; the lesser of offer and ours holds
    MAXIMUM   a number; the greater holds
    OR, AND   Yes or No; the Boolean function of offer and ours holds
    LIST      the first of the offered values that we have holds
    STATE     the initiator states it (names and the like); it is neither answered nor negotiated here

`Negotiation` holds one side's outcome so far. Keys may come in any order, in any stage, and spread over PDUs; a key
that comes twice ends the login; an unknown one is answered NotUnderstood, and one that has no meaning in a discovery
session Irrelevant. What nobody offers keeps the RFC's default, not our own wish.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from bootlink_wire.iscsi_codes import LoginStatus

KEY_LIMIT: Final = 63  # bytes of a key (RFC 7143, section 6.1)
VALUE_LIMIT: Final = 8192  # bytes of a value, the largest any key but X- keys may have (section 6.1)
PAIRS_LIMIT: Final = 128  # in one text: three times the keys that exist

NOT_UNDERSTOOD: Final = "NotUnderstood"
IRRELEVANT: Final = "Irrelevant"
REJECT: Final = "Reject"


class TextError(Exception):
    """The peer's text breaks the rules; `status` is what a login answers."""

    def __init__(self, message: str, status: LoginStatus = LoginStatus.INITIATOR_ERROR) -> None:
        super().__init__(message)
        self.status = status


class Kind(Enum):
    DECLARE = auto()
    MINIMUM = auto()
    MAXIMUM = auto()
    OR = auto()
    AND = auto()
    LIST = auto()
    STATE = auto()


@dataclass(frozen=True, slots=True)
class Key:
    """How one key is negotiated. `default` holds where nobody offers; `ours` is what this target wants."""

    kind: Kind
    default: str = ""
    ours: str = ""
    low: int = 0
    high: int = 0
    normal_only: bool = False  # Irrelevant in a discovery session
    any_phase: bool = False  # may be offered in full-feature phase too


RECEIVE_LIMIT: Final = 262_144  # bytes of data in one PDU that we take: one burst of open-iscsi's defaults
FIRST_BURST: Final = 65_536  # bytes of a write that may come unasked: bounds what 64 commands can send us
MAX_BURST: Final = 1_048_576  # bytes asked for by one R2T
OUTSTANDING_R2T: Final = 4  # R2Ts per command that may be open at once

_SIZES = (512, (1 << 24) - 1)  # bytes: the range that the RFC gives the three lengths

KEYS: Final[dict[str, Key]] = {
    "InitiatorName": Key(Kind.STATE),
    "InitiatorAlias": Key(Kind.STATE, any_phase=True),
    "TargetName": Key(Kind.STATE),
    "SessionType": Key(Kind.STATE),
    "AuthMethod": Key(Kind.LIST, "None"),  # ours is `Negotiation.auth`
    **dict.fromkeys(("CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R"), Key(Kind.STATE)),  # answered by `iscsi_chap`
    "HeaderDigest": Key(Kind.LIST, "None", "CRC32C,None"),
    "DataDigest": Key(Kind.LIST, "None", "CRC32C,None"),
    "TaskReporting": Key(Kind.LIST, "RFC3720", "RFC3720", normal_only=True),
    "MaxRecvDataSegmentLength": Key(Kind.DECLARE, "8192", str(RECEIVE_LIMIT), *_SIZES, any_phase=True),
    "MaxBurstLength": Key(Kind.MINIMUM, "262144", str(MAX_BURST), *_SIZES, normal_only=True),
    "FirstBurstLength": Key(Kind.MINIMUM, "65536", str(FIRST_BURST), *_SIZES, normal_only=True),
    "MaxConnections": Key(Kind.MINIMUM, "1", "1", 1, 65535, normal_only=True),
    "MaxOutstandingR2T": Key(Kind.MINIMUM, "1", str(OUTSTANDING_R2T), 1, 65535, normal_only=True),
    "ErrorRecoveryLevel": Key(Kind.MINIMUM, "0", "0", 0, 2),
    "DefaultTime2Retain": Key(Kind.MINIMUM, "20", "0", 0, 3600),
    "DefaultTime2Wait": Key(Kind.MAXIMUM, "2", "0", 0, 3600),
    "InitialR2T": Key(Kind.OR, "Yes", "No", normal_only=True),
    "ImmediateData": Key(Kind.AND, "Yes", "Yes", normal_only=True),
    "DataPDUInOrder": Key(Kind.OR, "Yes", "Yes", normal_only=True),
    "DataSequenceInOrder": Key(Kind.OR, "Yes", "Yes", normal_only=True),
    "iSCSIProtocolLevel": Key(Kind.MINIMUM, "1", "1", 0, 31, normal_only=True),
    # Markers are gone from RFC 7143, yet open-iscsi still offers them, and Linux's own target answers No as ever.
    "IFMarker": Key(Kind.AND, "No", "No"),
    "OFMarker": Key(Kind.AND, "No", "No"),
}


def parse(data: bytes) -> list[tuple[str, str]]:
    """The pairs of a text, in their order. TextError if it is none."""
    if not data:
        return []
    pairs = []
    for item in data.rstrip(b"\0").split(b"\0"):
        key, equals, value = item.partition(b"=")
        if not equals or not key or len(key) > KEY_LIMIT or len(value) > VALUE_LIMIT:
            raise TextError("a text holds something that is no key=value")
        try:
            pairs.append((key.decode("ascii"), value.decode("utf-8")))
        except UnicodeDecodeError:
            raise TextError("a text holds bytes that are no UTF-8") from None
        if len(pairs) > PAIRS_LIMIT:
            raise TextError(f"a text holds more than {PAIRS_LIMIT} pairs")
    return pairs


def encode(pairs: list[tuple[str, str]]) -> bytes:
    """The bytes of a text."""
    return b"".join(f"{key}={value}\0".encode() for key, value in pairs)


class Negotiation:
    """The outcome of all offers so far, seen from the target.

    `answer` takes the pairs of one text. `value`, `number` and `flag` tell what holds now. `offered` is what the
    initiator sent, by key. `auth` is the AuthMethod that will do.
    """

    __slots__ = ("_declared", "_values", "auth", "discovery", "offered")

    def __init__(self) -> None:
        self.offered: dict[str, str] = {}
        self.discovery = False
        self.auth = "None"
        self._values: dict[str, str] = {}
        self._declared: set[str] = set()

    def answer(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Our answers, in the order of the offers. TextError where the login cannot go on."""
        answers = []
        for name, offer in pairs:
            if name in self.offered:
                raise TextError(f"{name} is offered twice")
            self.offered[name] = offer
        for name, offer in pairs:
            said = self._answer(name, offer)
            if said is not None:
                answers.append((name, said))
        return answers

    def _answer(self, name: str, offer: str) -> str | None:
        key = KEYS.get(name)
        if key is None:
            return NOT_UNDERSTOOD
        if key.kind is Kind.STATE:
            return None
        if key.normal_only and self.discovery:
            return IRRELEVANT
        result = _result(key, self.auth if name == "AuthMethod" else key.ours, offer)
        if result == REJECT:
            return REJECT
        self._values[name] = result
        if key.kind is Kind.DECLARE:
            if name in self._declared:
                return None
            self._declared.add(name)
            return key.ours
        return result

    def declarations(self) -> list[tuple[str, str]]:
        """What we state of our own accord: the DECLARE keys that were not stated yet. Call it once per login."""
        names = [n for n, key in KEYS.items() if key.kind is Kind.DECLARE and n not in self._declared]
        self._declared.update(names)
        return [(name, KEYS[name].ours) for name in names]

    def renegotiate(self, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The same in full-feature phase, where few keys may be offered, and each again (section 6.3)."""
        answers = []
        for name, offer in pairs:
            key = KEYS.get(name)
            if key is not None and not key.any_phase:
                answers.append((name, REJECT))
                continue
            said = self._answer(name, offer)
            if said is not None:
                answers.append((name, said))
        return answers

    def value(self, name: str) -> str:
        return self._values.get(name, KEYS[name].default)

    def number(self, name: str) -> int:
        return int(self.value(name), 0)

    def flag(self, name: str) -> bool:
        return self.value(name) == "Yes"


def _result(key: Key, ours: str, offer: str) -> str:
    if key.kind is Kind.LIST:
        wanted = ours.split(",")
        return next((value for value in offer.split(",") if value in wanted), REJECT)
    if key.kind in (Kind.OR, Kind.AND):
        if offer not in ("Yes", "No"):
            return REJECT
        either = key.kind is Kind.OR
        values = (offer == "Yes", ours == "Yes")
        return "Yes" if (any(values) if either else all(values)) else "No"
    number = _number(offer)
    if number is None or not key.low <= number <= key.high:
        return REJECT
    if key.kind is Kind.DECLARE:
        return str(number)
    return str((min if key.kind is Kind.MINIMUM else max)(number, int(ours)))


def _number(text: str) -> int | None:
    """A decimal or 0x constant (section 6.1); None if it is neither. Long ones are no numbers of ours either."""
    if len(text) > 12:
        return None
    digits, base = (text[2:], 16) if text[:2] in ("0x", "0X") else (text, 10)
    if not digits or not all(c in "0123456789abcdefABCDEF"[: 22 if base == 16 else 10] for c in digits):
        return None
    return int(digits, base)
