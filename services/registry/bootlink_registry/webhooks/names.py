"""Looks up the addresses of webhooks' hosts, so that a name server which says nothing holds up nobody else.

The C library's look-up blocks its thread for as long as the name server is silent: 10 s by default, with several
servers longer, and nothing ends it. In the pool of threads that all of the registry shares, half a dozen webhooks with
such names would stop every other look-up and whatever waits for a file. So each has a thread of its own, which is a
daemon: the registry does not wait for it at its end. Who asks for a name that is being looked up gets what is found.

Source: getaddrinfo(3), resolv.conf(5) (`timeout`, `attempts`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from ipaddress import ip_address
from typing import Final

LOOKUPS_LIMIT: Final = 100  # threads: one for each webhook there may be (50), and as many of those that were changed


class Names:
    """What webhooks' hosts are called, and where they are."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Future[list[str]]] = {}

    async def addresses(self, host: str) -> list[str]:
        """The addresses of this host, the best first; of an address itself. OSError if it has none."""
        with contextlib.suppress(ValueError):
            return [str(ip_address(host))]
        found = self._under_way.get(host)
        if found is None:
            if len(self._under_way) >= LOOKUPS_LIMIT:
                raise OSError(f"{LOOKUPS_LIMIT} other names wait for an answer; is the name server there?")
            found = self._begin(host)
        return await asyncio.shield(found)  # whoever gives up does not give up for the others

    def _begin(self, host: str) -> asyncio.Future[list[str]]:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def ended(addresses: list[str], error: OSError | None) -> None:
            del self._under_way[host]
            if error is not None:
                found.set_exception(error)
                found.exception()  # nobody may be left to ask
            else:
                found.set_result(addresses)

        def look_up() -> None:
            addresses: list[str] = []
            failed: OSError | None = None
            try:
                told = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
                addresses = list(dict.fromkeys(str(address[0]) for *_, address in told))
            except UnicodeError as error:
                failed = OSError(str(error))
            except OSError as error:
                failed = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended, addresses, failed)

        try:
            threading.Thread(target=look_up, name=f"look up {host}", daemon=True).start()
        except RuntimeError as error:  # the system gives us no more threads
            raise OSError(str(error)) from error
        self._under_way[host] = found  # `ended` is called by the loop, after this
        return found
