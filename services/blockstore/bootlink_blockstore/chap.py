"""CHAP in the security stage of a login, seen from the target (RFC 7143, section 12.1.3). No I/O.

Theory of operation.

    initiator                      target                          state
    AuthMethod=CHAP                AuthMethod=CHAP                 offer
    CHAP_A=7,5                     CHAP_A=7 CHAP_I=.. CHAP_C=..    challenge
    CHAP_N=.. CHAP_R=..            (nothing)                       done
      and CHAP_I=.. CHAP_C=..      CHAP_N=.. CHAP_R=..             done, mutually

Every login gets a challenge and an identifier of its own, fresh from the system's random numbers, and one try. The
initiator must have proved itself before it is answered a challenge of its own; a challenge that is ours, sent back to
us, ends the login, and as the two directions have secrets that differ, the answer would be worth nothing anyway.

Keys that come twice in a login are refused by the negotiation, before they come here.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable, Mapping
from typing import Final

from bootlink_events import Credentials
from bootlink_wire import iscsi_chap
from bootlink_wire.iscsi_chap import ALGORITHMS

KEYS: Final = ("CHAP_A", "CHAP_I", "CHAP_C", "CHAP_N", "CHAP_R")
IDENTIFIER_MAX: Final = 255  # one byte


class ChapError(Exception):
    """The initiator breaks the exchange, or has proved nothing (`proof`). Its text holds no value of the exchange."""

    def __init__(self, message: str, *, proof: bool = False) -> None:
        super().__init__(message)
        self.proof = proof


class Chap:
    """One exchange. `done` once the initiator has proved that it knows its secret."""

    __slots__ = ("_algorithm", "_challenge", "_credentials", "_identifier", "_mutual", "_random", "done")

    def __init__(
        self, credentials: Credentials, *, mutual: bool, random: Callable[[int], bytes] = secrets.token_bytes
    ) -> None:
        """`mutual`: an initiator may ask for our proof too. `random` gives that many bytes."""
        self.done = False
        self._credentials = credentials
        self._mutual = mutual
        self._random = random
        self._algorithm = 0
        self._identifier = 0
        self._challenge = b""

    def step(self, keys: Mapping[str, str]) -> list[tuple[str, str]]:
        """Our answer to the exchange's keys of one text. ChapError ends the login."""
        if not keys:
            return []
        if not self._challenge and set(keys) == {"CHAP_A"}:
            return self._begin(keys["CHAP_A"])
        asked = {"CHAP_N", "CHAP_R"}
        if self._challenge and not self.done and set(keys) in (asked, asked | {"CHAP_I", "CHAP_C"}):
            self._verify(keys["CHAP_N"], keys["CHAP_R"])
            self.done = True
            return self._prove(keys["CHAP_I"], keys["CHAP_C"]) if "CHAP_C" in keys else []
        raise ChapError(f"{', '.join(sorted(keys))} out of turn")

    def _begin(self, offer: str) -> list[tuple[str, str]]:
        chosen = iscsi_chap.choose(offer)
        if chosen is None:
            raise ChapError("no CHAP algorithm that both sides have", proof=True)
        self._algorithm = chosen
        self._identifier = self._random(1)[0]
        self._challenge = self._random(ALGORITHMS[chosen].size)
        return [
            ("CHAP_A", str(chosen)),
            ("CHAP_I", str(self._identifier)),
            ("CHAP_C", iscsi_chap.encode(self._challenge)),
        ]

    def _verify(self, name: str, response: str) -> None:
        right = self._answer(self._identifier, self._credentials.secret, self._challenge)
        given = self._value("CHAP_R", response)
        # Both are looked at, whatever the first says: how long it takes must not tell which was wrong.
        proved = hmac.compare_digest(right, given)
        named = hmac.compare_digest(self._credentials.user.encode(), name.encode())
        if not (proved and named):
            raise ChapError("its CHAP name or response is wrong", proof=True)

    def _prove(self, identifier: str, challenge: str) -> list[tuple[str, str]]:
        if not self._mutual:
            raise ChapError("it asks for a proof that its link does not provide for", proof=True)
        if not (identifier.isascii() and identifier.isdigit() and len(identifier) <= 3):
            raise ChapError("its CHAP_I is no number")
        number, value = int(identifier), self._value("CHAP_C", challenge)
        if number > IDENTIFIER_MAX:
            raise ChapError("its CHAP_I is no byte")
        if value == self._challenge:
            raise ChapError("it sends our own challenge back", proof=True)
        answer = self._answer(number, self._credentials.target_secret, value)
        return [("CHAP_N", self._credentials.target_user), ("CHAP_R", iscsi_chap.encode(answer))]

    def _answer(self, identifier: int, secret: str, challenge: bytes) -> bytes:
        return ALGORITHMS[self._algorithm].response(identifier, secret.encode(), challenge)

    @staticmethod
    def _value(name: str, text: str) -> bytes:
        try:
            return iscsi_chap.decode(text)
        except ValueError:
            raise ChapError(f"its {name} is no binary value of 1 to {iscsi_chap.VALUE_LIMIT} bytes") from None
