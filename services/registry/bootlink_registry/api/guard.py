"""Who may in: every request but none needs a token, before anything of it is read beyond its headers.

A request carries `Authorization: Bearer TOKEN`. Without a token that holds it is answered 401, whatever it asks for;
so nobody can find out which paths and names there are. There are no cookies and no page, hence nothing that a web site
could have an administrator's browser do.

Whoever fails too often from one address gets 429. A token that holds is let in all the same: whoever tries tokens from
an office's one address, or on this machine, must not lock its administrator out. That costs nothing, because nobody
guesses 256 bits; what the limit saves is our log.

Each change leaves a line in the log that says who made it.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bootlink_registry.api.answers import answer
from bootlink_registry.tokens import Identity, Tokens

FAILURES: Final = 10  # in a row from one address, before it has to wait
FAILURE_SECONDS: Final = 6.0  # until one of them is forgiven: ten a minute for whoever goes on
ADDRESSES: Final = 4_096  # remembered; the one that failed longest ago goes first
PATH_LOGGED: Final = 200  # characters

_READS: Final = ("GET", "HEAD", "OPTIONS")
_REMEDY: Final = (
    "send Authorization: Bearer TOKEN; the command takes it from BOOTLINK_TOKEN or BOOTLINK_TOKEN_FILE, and on the "
    "machine where `bootlink up` runs from admin.token in its data folder"
)


class Failures:
    """How often each address failed lately: a bucket that each failure fills by one, and that leaks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._full_until: OrderedDict[str, float] = OrderedDict()  # address: when all its failures are forgiven

    def add(self, address: str) -> float:
        """One more. Returns the seconds that it has to wait; 0 while it need not."""
        now = self._clock()
        until = max(self._full_until.pop(address, now), now) + FAILURE_SECONDS
        excess = until - now - FAILURES * FAILURE_SECONDS
        if excess > 0:
            until -= FAILURE_SECONDS  # who does not wait waits no longer for it
        self._full_until[address] = until
        if len(self._full_until) > ADDRESSES:
            self._full_until.popitem(last=False)
        return max(excess, 0.0)


class Guard:
    """ASGI middleware that lets in who has a token, and notes in the log who changes what."""

    def __init__(self, app: ASGIApp, *, tokens: Tokens, log: Any) -> None:
        self._app = app
        self._tokens = tokens
        self._log = log
        self._failures = Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"the API speaks HTTP alone, not {scope['type']}")
        token = _token_of(Headers(scope=scope))
        identity = self._tokens.identify(token) if token else None
        if identity is None:
            await self._refuse(scope, receive, send, token)
            return
        scope.setdefault("state", {})["identity"] = identity
        if scope["method"] in _READS:
            await self._app(scope, receive, send)
        else:
            await self._noted(scope, receive, send, identity)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, token: str | None) -> None:
        if token and not self._tokens.loaded:
            told = answer(503, "the registry has not read its tokens yet: its database does not answer", "repeat soon")
            await told(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else "unknown"
        wait = self._failures.add(address)
        if wait > 0:
            told = answer(429, "too many requests without a token that holds", f"wait {wait:.0f} s; {_REMEDY}")
            told.headers["Retry-After"] = str(int(wait) + 1)
        else:
            what = "the token is not known, or has expired" if token else "the request carries no token"
            told = answer(401, what, _REMEDY)
            told.headers["WWW-Authenticate"] = 'Bearer realm="bootlink"' + (', error="invalid_token"' if token else "")
            self._log.warning("request refused", problem=what, address=address, path=_path(scope))
        await told(scope, receive, send)

    async def _noted(self, scope: Scope, receive: Receive, send: Send, identity: Identity) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._log.info(
                    "change" if message["status"] < 400 else "change refused",
                    author=identity.name,
                    role=identity.role,
                    method=scope["method"],
                    path=_path(scope),
                    status=message["status"],
                )
            await send(message)

        await self._app(scope, receive, noting)


def _token_of(headers: Headers) -> str | None:
    """The bearer token of a request; None without one, or with several."""
    given = headers.getlist("authorization")
    if len(given) != 1:
        return None
    scheme, _, token = given[0].partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _path(scope: Scope) -> str:
    return str(scope["path"])[:PATH_LOGGED]
