"""What can be wrong with a request: one exception, which carries its answer (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

NAMES_SHOWN: Final = 10  # of what there is, in the answer to a request for what there is not


class Problem(Exception):
    """A request that cannot be done: HTTP status, what is wrong (`detail`), and what to do (`remedy`)."""

    def __init__(self, status: int, detail: str, remedy: str, **more: Any) -> None:
        super().__init__(f"{detail}: {remedy}")
        self.status = status
        self.detail = detail
        self.remedy = remedy
        self.more = more


def not_found(detail: str, remedy: str, **more: Any) -> Problem:
    return Problem(404, detail, remedy, **more)


def conflict(detail: str, remedy: str) -> Problem:
    return Problem(409, detail, remedy)


def invalid(detail: str, remedy: str) -> Problem:
    return Problem(422, detail, remedy)


def listed(names: Iterable[str], total: int) -> str:
    """Some names for a message: "a, b and 3 more"; "none yet" where there are none."""
    shown = list(names)[:NAMES_SHOWN]
    if not shown:
        return "none yet"
    return ", ".join(shown) + (f" and {total - len(shown)} more" if total > len(shown) else "")
