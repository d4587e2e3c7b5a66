"""Wake-on-LAN: the registry asks, this service sends, because it alone sits on the PCs' own network.

A PC that sleeps answers nothing, so what is told is that the packet left, and over which card. It is sent a few times:
a sleeping card's link runs at 10 or 100 Mbit/s, and a switch that renegotiates loses what comes meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

from bootlink_dhcp.interface import Card, open_broadcast, reach
from bootlink_events.commands import ClientWoken, WakeClient
from bootlink_runtime import CommandError, Health, Logger, StartupError
from bootlink_wire import wake

TIMES: Final = 3
GAP_SECONDS: Final = 0.1  # between two; in all well below what an asker waits
_EVERYBODY: Final = "255.255.255.255"  # on this card: a PC that is off has no address of its own


class Waker:
    """Sends magic packets over one card."""

    def __init__(self, card: Card, *, health: Health, log: Logger) -> None:
        """StartupError if the socket is not permitted."""
        self._card, self._health, self._log = card, health, log
        self._sock: socket.socket = open_broadcast(card)

    def close(self) -> None:
        self._sock.close()

    async def wake(self, command: WakeClient) -> ClientWoken:
        """Send it. CommandError if nothing can leave the card."""
        packet = wake.encode(bytes.fromhex(command.mac.replace(":", "")))
        try:
            reached, why = reach(self._card, self._sock)
        except StartupError as error:
            raise CommandError(error.problem, error.remedy) from error
        if not reached:
            raise CommandError(why, "see to the card, then wake the client again")
        for number in range(TIMES):
            if number:
                await asyncio.sleep(GAP_SECONDS)
            try:
                self._sock.sendto(packet, (_EVERYBODY, wake.WAKE_PORT))
            except OSError as error:
                raise CommandError(
                    f"the magic packet did not leave {self._card.name}: {error.strerror}",
                    "see to the card, then wake the client again",
                ) from error
        self._health.count("clients_woken")
        self._log.info("magic packet sent", mac=command.mac, card=self._card.name)
        return ClientWoken(interfaces=(self._card.name,))
