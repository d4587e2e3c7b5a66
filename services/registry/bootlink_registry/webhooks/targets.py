"""Where a webhook may go. Whoever may add one could otherwise have the registry ask its own machine (SSRF).

The URL is checked when it is set, the address at each attempt, after the name was resolved and before it is connected
to: a name that is made to point elsewhere later gains nothing. Never reached, unless a setting names them: this
machine itself, by its loopback or by any address that it has, link-local addresses (where clouds keep credentials),
multicast and what stands for no host. Private networks are reached, as this is where the receivers of a boot server
are. Redirects are not followed. A container knows its own addresses alone, and not those of the machine below it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

import httpx

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

URL_LIMIT: Final = 2_000  # characters
URL_PATTERN: Final = (
    r"^https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?(/[!-~]*)?$|^https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?(/[!-~]*)?$"
)
_URL: Final = re.compile(URL_PATTERN)
_DISCARD: Final = 9  # a port, as there must be one


def check_url(text: str) -> str:
    """`text` itself if a webhook may have it. ValueError says what is wrong."""
    if len(text) > URL_LIMIT:
        raise ValueError(f"the URL is longer than {URL_LIMIT} characters")
    try:
        parts = urlsplit(text)
        readable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        readable = False
    if not readable or parts.scheme not in ("http", "https"):
        raise ValueError("it is no URL of a web server; write it like https://events.example/bootlink")
    if "@" in parts.netloc:
        raise ValueError("a user or password in a URL is shown to whoever reads it; check the signature instead")
    try:
        httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ValueError(f"it is no URL of a web server: {error}") from error
    if "#" in text or not _URL.fullmatch(text):
        raise ValueError("it has characters that no URL of a request has; quote them with %")
    return text


def why_not(address: str, allowed: Sequence[Network]) -> str:
    """Why this address is not connected to; empty if it is."""
    found = ip_address(address.partition("%")[0])
    plain = found.ipv4_mapped if isinstance(found, IPv6Address) and found.ipv4_mapped else found
    if any(plain.version == network.version and plain in network for network in allowed):
        return ""
    if plain.is_loopback or plain.is_link_local or plain.is_multicast or plain.is_unspecified or plain.is_reserved:
        problem = "this machine's own or no host's"
    elif _ours(plain):
        problem = "an address of this machine"
    else:
        return ""
    return f"{plain} is {problem}, and BOOTLINK_REGISTRY_WEBHOOK_NETWORKS does not name it"


def _ours(address: Address) -> bool:
    """Whether this machine has it. The kernel is asked from which address it would send there: from that one itself, to
    an address of its own. (Binding to it would not tell where net.ipv4.ip_nonlocal_bind is set.) Nothing is sent."""
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((str(address), _DISCARD))
            return ip_address(probe.getsockname()[0]) == address
    except OSError:
        return False  # no way there at all
