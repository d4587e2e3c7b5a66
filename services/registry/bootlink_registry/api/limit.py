"""A limit on what one request may bring, before it is held in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_LIMIT: Final = 64 * 1024  # bytes; the largest request names a path of 4 KiB and a note of 1,000 characters
LARGER: Final[Mapping[str, int]] = {"/v1/roster": 8 << 20}  # a file of 20,000 clients has some 3 MiB


class BodyLimit:
    """Refuses a body of more bytes than its path may bring with 413, whether its length was told or not."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken = 0
        limit = LARGER.get(scope.get("path", ""), BODY_LIMIT)

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > limit:
                raise HTTPException(413, f"the body is longer than {limit} bytes")
            return message

        await self._app(scope, limited, send)
