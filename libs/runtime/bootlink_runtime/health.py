"""What a service says of itself: alive, ready, where it listens, and what it counted.

*Alive* means that the event loop turns. *Ready* means that `ready()` was called and every required check holds. A
check that is not required (the connection to NATS, say: a boot does without it) is shown but keeps no traffic away.
The same report is what `bootlink status` shows; it travels over NATS (see `discovery`). A service may tell more of
itself on *pages* of its own, such as what its cache holds. Its metrics are served here, too (see `metering`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Check = Callable[[], tuple[bool, str]]
Page = Callable[[], dict[str, Any]]
Scrape = Callable[[str], Awaitable[tuple[bytes, str]]]
"""From what the client accepts to all metrics and their content type."""

SCRAPES_LIMIT: Final = 4  # under way and waiting: each takes some milliseconds of CPU that PCs wait for


@dataclass(frozen=True, slots=True)
class Address:
    """An address that a service listens on."""

    what: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Health:
    """The health of one service."""

    def __init__(self, service: str, node: str) -> None:
        self.service = service
        self.node = node
        self.started = datetime.now(UTC)
        self.serving = False
        self.addresses: list[Address] = []
        self.counters: Counter[str] = Counter()
        self.pages: dict[str, Page] = {"status": self.report}
        self.scrape: Scrape | None = None  # answers GET /metrics, where there is one
        self._checks: dict[str, tuple[Check, bool]] = {}

    def check(self, name: str, check: Check, *, required: bool = True) -> None:
        """Add a check: a function that returns whether it holds, and a line of detail. It must not block."""
        self._checks[name] = (check, required)

    def page(self, name: str, page: Page) -> None:
        """Add what is told as JSON under GET /`name` and over NATS (`ask`). It must not block."""
        self.pages[name] = page

    def count(self, name: str, n: int = 1) -> None:
        """Count something, such as a packet that was dropped. Names come from code, never from input."""
        self.counters[name] += n

    @property
    def ready(self) -> bool:
        return self.serving and all(check()[0] for check, required in self._checks.values() if required)

    def checked(self) -> dict[str, tuple[bool, bool]]:
        """Of each check, whether it holds and whether it is required."""
        return {name: (check()[0], required) for name, (check, required) in self._checks.items()}

    def report(self) -> dict[str, Any]:
        """The whole report, as plain JSON data."""
        checks = {}
        for name, (check, required) in self._checks.items():
            holds, detail = check()
            checks[name] = {"ok": holds, "required": required, "detail": detail}
        return {
            "service": self.service,
            "node": self.node,
            "ready": self.serving and all(c["ok"] for c in checks.values() if c["required"]),
            "started": self.started.isoformat(timespec="milliseconds"),
            "addresses": {address.what: str(address) for address in self.addresses},
            "checks": checks,
            "counters": dict(self.counters),
        }

    def app(self) -> Starlette:
        """The HTTP face: /healthz answers while the loop turns, /readyz with 200 or 503 and the report; the pages; and
        /metrics, one at a time."""
        scraping = asyncio.Lock()
        scrapes = 0

        async def healthz(_: Request) -> JSONResponse:
            return JSONResponse({"service": self.service, "alive": True})

        async def readyz(_: Request) -> JSONResponse:
            report = self.report()
            return JSONResponse(report, status_code=200 if report["ready"] else 503)

        async def metrics(request: Request) -> Response:
            nonlocal scrapes
            if self.scrape is None:
                return JSONResponse({"pages": sorted(self.pages)}, status_code=404)
            if scrapes >= SCRAPES_LIMIT:
                return Response("too many scrapes at once; have one server scrape, and others read from it\n", 503)
            scrapes += 1
            try:
                async with scraping:
                    text, kind = await self.scrape(request.headers.get("accept", ""))
            finally:
                scrapes -= 1
            return Response(text, headers={"content-type": kind})

        async def page(request: Request) -> JSONResponse:
            found = self.pages.get(request.path_params["page"])
            if found is None:
                return JSONResponse({"pages": sorted(self.pages)}, status_code=404)
            return JSONResponse(found())

        return Starlette(
            routes=[
                Route("/healthz", healthz),
                Route("/readyz", readyz),
                Route("/metrics", metrics),
                Route("/{page}", page),
            ]
        )
