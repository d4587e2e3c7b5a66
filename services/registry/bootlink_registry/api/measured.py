"""How long requests took, by method and by the class of their answer's status. Paths would be series without end."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bootlink_runtime import Distribution

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "other")
STATUSES: Final = ("2xx", "3xx", "4xx", "5xx", "none")  # none: it failed before an answer began


class Requests:
    """What was measured."""

    def __init__(self) -> None:
        self._spread: dict[tuple[str, str], Distribution] = {}

    def all(self) -> list[tuple[tuple[str, str], Distribution]]:
        """By method and status, of those that there were."""
        return list(self._spread.items())

    def record(self, method: str, status: int, seconds: float) -> None:
        key = (method if method in METHODS else "other", f"{status // 100}xx" if 200 <= status < 600 else "none")
        self._spread.setdefault(key, Distribution()).record(seconds)


class Measured:
    """Measures all that is inside of it."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app = app
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = perf_counter(), 0

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, seen)
        finally:
            self._requests.record(scope["method"], status, perf_counter() - began)
