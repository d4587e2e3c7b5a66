"""Who has an address of their own: the boot plans' `address`, looked up both ways.

Plans arrive one by one. Where two clients swap their addresses, the first plan claims what the second has not given up
yet; so a claim that cannot be honoured waits, and is when the address becomes free.
"""

from __future__ import annotations

from collections.abc import Collection
from ipaddress import IPv4Address

from bootlink_dhcp.subnet import Subnet


class Reservations:
    """The addresses that plans reserve in our subnets. One address has one owner; the first to claim it keeps it."""

    def __init__(self, *subnets: Subnet) -> None:
        self._subnets = subnets
        self._address: dict[str, IPv4Address] = {}
        self._owner: dict[IPv4Address, str] = {}
        self._waiting: dict[str, IPv4Address] = {}  # claims of what another owns, oldest first
        self.wrong: dict[str, str] = {}  # what is wrong with the address of whoever does not get it

    def set(self, mac: str, address: IPv4Address | None) -> str | None:
        """A client's plan arrived, changed or went (None). Returns what is wrong with its address, if anything is."""
        self._waiting.pop(mac, None)
        self.wrong.pop(mac, None)
        former = self._address.pop(mac, None)
        if former is not None:
            del self._owner[former]
        wrong = None if address is None else self._claim(mac, address)
        if wrong:
            self.wrong[mac] = wrong
        if former is not None and former not in self._owner:
            self._pass_on(former)
        return wrong

    def _claim(self, mac: str, address: IPv4Address) -> str | None:
        if not any(subnet.assignable(address) for subnet in self._subnets):
            networks = " or ".join(str(subnet.network) for subnet in self._subnets)
            return f"{address} cannot be a client's address in {networks}"
        if address in self._owner:
            self._waiting[mac] = address
            return f"{address} is reserved for {self._owner[address]} already; it is this client's when that is no more"
        self._address[mac] = address
        self._owner[address] = mac
        return None

    def _pass_on(self, address: IPv4Address) -> None:
        heir = next((mac for mac, wanted in self._waiting.items() if wanted == address), None)
        if heir is not None:
            del self._waiting[heir], self.wrong[heir]
            self._claim(heir, address)

    def of(self, mac: str) -> IPv4Address | None:
        """The address reserved for this client."""
        return self._address.get(mac)

    def owner(self, address: IPv4Address) -> str | None:
        """The client that this address is reserved for."""
        return self._owner.get(address) if self._owner else None

    def addresses(self) -> Collection[IPv4Address]:
        """All that are reserved."""
        return self._owner.keys()
