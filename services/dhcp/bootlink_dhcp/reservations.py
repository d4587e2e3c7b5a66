"""Who has an address of their own: the boot plans' `address`, looked up both ways."""

from __future__ import annotations

from ipaddress import IPv4Address

from bootlink_dhcp.subnet import Subnet


class Reservations:
    """The addresses that plans reserve in our subnet. One address has one owner; the first to claim it keeps it."""

    def __init__(self, subnet: Subnet) -> None:
        self._subnet = subnet
        self._address: dict[str, IPv4Address] = {}
        self._owner: dict[IPv4Address, str] = {}

    def set(self, mac: str, address: IPv4Address | None) -> str | None:
        """A client's plan arrived, changed or went (None). Returns what is wrong with its address, if anything is."""
        former = self._address.pop(mac, None)
        if former is not None:
            del self._owner[former]
        if address is None:
            return None
        if not self._subnet.assignable(address):
            return f"{address} cannot be a client's address in {self._subnet.network}"
        if address in self._owner:
            return f"{address} is reserved for {self._owner[address]} already"
        self._address[mac] = address
        self._owner[address] = mac
        return None

    def of(self, mac: str) -> IPv4Address | None:
        """The address reserved for this client."""
        return self._address.get(mac)

    def owner(self, address: IPv4Address) -> str | None:
        """The client that this address is reserved for."""
        return self._owner.get(address)
