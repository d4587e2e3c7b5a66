"""A receiver of webhooks: a real HTTP server on 127.0.0.1 that checks requests with Standard Webhooks' own library."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from bootlink_runtime.http import listen, serving

Asgi = Any


@dataclass
class Received:
    """One request. `verified`: its signature holds under the secret that the receiver was given."""

    headers: dict[str, str]
    body: bytes
    verified: bool

    @property
    def event(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """Answers as it is told, and remembers what it was sent."""

    port: int
    secret: str = ""
    received: list[Received] = field(default_factory=list)
    answers: Callable[[Received], int] = lambda _: 204
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    hold: asyncio.Event | None = None  # answers once this is set

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?key=value"

    @property
    def ids(self) -> list[str]:
        return [one.headers["webhook-id"] for one in self.received]

    async def __call__(self, scope: Asgi, receive: Asgi, send: Asgi) -> None:
        assert scope["type"] == "http", scope["type"]
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        one = Received(headers, body, self._verified(headers, body))
        self.received.append(one)
        if self.hold is not None:
            await self.hold.wait()
        status = self.answers(one)
        await send({"type": "http.response.start", "status": status, "headers": self.headers})
        await send({"type": "http.response.body", "body": b"" if status == 204 else b"not today\nand more"})

    def _verified(self, headers: dict[str, str], body: bytes) -> bool:
        if not self.secret:
            return False
        try:
            Webhook(self.secret).verify(body, headers)
        except WebhookVerificationError:
            return False
        return True


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A running receiver on a free port."""
    sock = listen("127.0.0.1", 0, what="the receiver", variable="none")
    receiver = Receiver(sock.getsockname()[1])
    async with serving(receiver, sock):
        yield receiver
