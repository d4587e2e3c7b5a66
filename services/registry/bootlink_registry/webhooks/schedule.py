"""What an answer means for a delivery, and when the next attempt is due."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Final

FIRST_SECONDS: Final = 5.0  # before the second attempt; twice as long each time, up to
LONGEST_SECONDS: Final = 600.0
JITTER: Final = 0.25  # either way: deliveries that failed together do not come back together
REFUSALS: Final = 8  # attempts at an event that the receiver refuses: about ten minutes
HOURS: Final = 24.0  # an event that was tried in vain for so long is given up

_BUSY: Final = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


class Verdict(Enum):
    """What came of an attempt."""

    DELIVERED = "delivered"
    REFUSED = "refused"  # this event; others may be taken
    AWAY = "away"  # the receiver takes nothing now
    GONE = "gone"  # and never will: 410, which Standard Webhooks has mean so


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of an attempt, in words, and how long the receiver asks to be left alone."""

    verdict: Verdict
    problem: str = ""
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How patient we are."""

    first: float = FIRST_SECONDS
    hours: float = HOURS

    def delay(self, failures: int, *, retry_after: float = 0.0) -> float:
        """Seconds until the next attempt, after so many failures in a row (1 and up)."""
        doubled = self.first * 2.0 ** min(failures - 1, 30)
        asked = max(min(doubled, LONGEST_SECONDS), min(retry_after, LONGEST_SECONDS))
        return asked * random.uniform(1 - JITTER, 1 + JITTER)

    def given_up(self, refusals: int, waited: float) -> bool:
        """Whether an event is given up that was refused so often, and waits since `waited` seconds."""
        return refusals >= REFUSALS or waited >= self.hours * 3600


class Pace:
    """How many requests one webhook may have under way now. While it takes nothing: one, and rests between."""

    def __init__(self, schedule: Schedule, *, most: int, failing: bool) -> None:
        self._schedule = schedule
        self._most = most
        self._failures = int(failing)
        self._rest_until = 0.0

    @property
    def failing(self) -> bool:
        return self._failures > 0

    def room(self, now: float, under_way: int) -> int:
        """How many more requests may begin now."""
        return 0 if now < self._rest_until else max(0, (1 if self.failing else self._most) - under_way)

    def rest(self, now: float) -> float:
        """Seconds until the next request may begin; 0 while one may."""
        return max(0.0, self._rest_until - now)

    def delivered(self) -> bool:
        """It took an event. True if it took nothing until now."""
        failed, self._failures, self._rest_until = self.failing, 0, 0.0
        return failed

    def away(self, now: float, retry_after: float) -> None:
        """It took nothing. What was under way at the same time tells nothing new."""
        if now >= self._rest_until:
            self._failures += 1
            self._rest_until = now + self._schedule.delay(self._failures, retry_after=retry_after)

    def hurry(self) -> None:
        """End the rest: somebody has mended it."""
        self._rest_until = 0.0


def verdict_of(status: int) -> Verdict:
    """What an answer's status means. A redirect is a refusal: it is not followed."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Verdict.DELIVERED
    if status == HTTPStatus.GONE:
        return Verdict.GONE
    return Verdict.AWAY if status in _BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR else Verdict.REFUSED


def seconds_of(retry_after: str) -> float:
    """What a Retry-After header asks for in seconds; 0 where it has none, or a date."""
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0
