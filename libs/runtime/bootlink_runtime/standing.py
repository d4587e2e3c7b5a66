"""Subscriptions that stand for as long as a service runs.

They outlive restarts of the NATS server, which nats-py resubscribes to; but not a client that nats-py gave up, which
the bus replaces by another. Whoever answers on a subject of its own subscribes by this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from bootlink_runtime.bus import Bus
from bootlink_runtime.logs import Logger

RETRY_SECONDS: Final = 0.5  # after the connection broke while subscribing


async def on_each_client(bus: Bus, subscribe: Callable[[Client], Awaitable[None]], log: Logger, *, what: str) -> None:
    """Subscribe with each client that the bus has, for ever: again where that fails, once where it does not."""
    client: Client | None = None
    epoch = 0
    while True:
        epoch = await bus.epoch_after(epoch)
        fresh = bus.client
        if fresh is client:
            continue
        try:
            await subscribe(fresh)
        except (NatsError, OSError, TimeoutError) as error:
            log.debug("not subscribed", what=what, error=str(error))
            epoch = 0
            await asyncio.sleep(RETRY_SECONDS)
        else:
            client = fresh
            log.debug("subscribed", what=what)
