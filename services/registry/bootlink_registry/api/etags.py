"""Lost updates: two administrators read a client, and the second writes over what the first has changed.

Every answer that stands for something that can be changed has an ETag, made of what can be changed by a request (and
of nothing that changes by itself, such as a client's last boot). A request that changes it may carry it in If-Match;
then it is done only if nothing was changed in between, and answered 412 otherwise (RFC 9110, section 13.1.1).

The comparison and the change are one transaction that sees one state (repeatable read): a change that comes between
the two makes PostgreSQL refuse the second write of a row, which is 412 as well.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import asyncpg

from bootlink_registry.api.models.base import Answer
from bootlink_registry.database import Connection, Database
from bootlink_registry.problems import Problem

DIGITS: Final = 32  # hexadecimal ones of the SHA-256: 128 bits
IF_MATCH: Final = r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$'  # RFC 9110, section 13.1.1
_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


class Tagged(Answer):
    """An answer that stands for something that can be changed."""

    def changeable(self) -> dict[str, Any]:
        """What its ETag is made of."""
        return self.model_dump(mode="json")


Current = Callable[[Connection], Awaitable[Tagged]]
"""Reads what is about to be changed. Raises Problem (404) if it is not there."""


def etag_of(answer: Tagged) -> str:
    """A strong ETag, in its quotes."""
    text = json.dumps(answer.changeable(), sort_keys=True)
    return f'"{hashlib.sha256(text.encode()).hexdigest()[:DIGITS]}"'


def matches(if_match: str, etag: str) -> bool:
    """Whether an If-Match names this ETag. A weak one names none."""
    return if_match.strip() == "*" or any(not weak and f'"{tag}"' == etag for weak, tag in _TAG.findall(if_match))


@contextlib.asynccontextmanager
async def change(database: Database, if_match: str | None, current: Current) -> AsyncIterator[Connection]:
    """A transaction that changes something. Problem 412 unless it is still what `if_match` names."""
    if if_match is None:
        async with database.transaction() as connection:
            yield connection
        return
    try:
        async with database.transaction(isolation="repeatable_read") as connection:
            try:
                now = etag_of(await current(connection))
            except Problem as missing:
                if missing.status != 404:
                    raise
                raise _changed(f"{missing.detail}, so If-Match names nothing that there is") from missing
            if not matches(if_match, now):
                raise _changed("it is not what If-Match names: somebody has changed it in between")
            yield connection
    except asyncpg.SerializationError as error:
        raise _changed("somebody has changed it at the same time") from error


def _changed(detail: str) -> Problem:
    return Problem(412, detail, "read it again, and decide anew; its ETag is what If-Match has to name")
