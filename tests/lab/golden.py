"""Real captures, from tests/golden: hexadecimal with a note in `#` lines above it."""

from __future__ import annotations

from pathlib import Path

GOLDEN = Path(__file__).parent.parent / "golden"


def dhcp_capture(name: str) -> bytes:
    """One captured DHCP packet, as the UDP payload it was."""
    return _capture("dhcp", name)


def tftp_capture(name: str) -> bytes:
    """One captured TFTP packet, as the UDP payload it was."""
    return _capture("tftp", name)


def _capture(protocol: str, name: str) -> bytes:
    lines = (GOLDEN / protocol / name).read_text().splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))
