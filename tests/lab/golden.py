"""Real captures, from tests/golden: hexadecimal with a note in `#` lines above it.

`differs` compares a packet of today's firmware with its capture, so that a capture stays what the firmware sends.
"""

from __future__ import annotations

from pathlib import Path

from bootlink_wire import dhcp
from bootlink_wire import dhcp_options as opt

GOLDEN = Path(__file__).parent.parent / "golden"
LINE = 32  # octets
# What is another at each boot or on each PC, and what the server has said.
VARYING = frozenset({opt.CLIENT_ID.code, opt.CLIENT_UUID.code, opt.REQUESTED_ADDRESS.code, opt.SERVER_ID.code})


def dhcp_capture(name: str) -> bytes:
    """One captured DHCP packet, as the UDP payload it was."""
    return _capture("dhcp", name)


def tftp_capture(name: str) -> bytes:
    """One captured TFTP packet, as the UDP payload it was."""
    return _capture("tftp", name)


def http_capture(name: str) -> bytes:
    """The head of one captured HTTP request, with its empty line."""
    return _capture("http", name)


def write(protocol: str, name: str, note: str, payload: bytes) -> Path:
    """Keep a capture under a name, with a note of who sent it and where it was captured."""
    path = GOLDEN / protocol / name
    path.parent.mkdir(exist_ok=True)
    lines = [payload[at : at + LINE].hex() for at in range(0, len(payload), LINE)]
    path.write_text("".join(f"# {line}\n" for line in note.splitlines()) + "\n".join(lines) + "\n")
    return path


def differs(payload: bytes, name: str) -> list[str]:
    """In what a DHCP packet differs from a capture, but for what no two boots have in common; empty: in nothing."""
    found, golden = dhcp.decode(payload), dhcp.decode(dhcp_capture(name))
    said = [
        f"{field}: {getattr(found, field)}, was {getattr(golden, field)}"
        for field in ("op", "htype", "hops", "flags", "ciaddr", "yiaddr", "siaddr", "giaddr", "sname", "file")
        if getattr(found, field) != getattr(golden, field)
    ]
    if [*found.options] != [*golden.options]:
        said.append(f"options {[*found.options]}, were {[*golden.options]}")
    both = found.options.keys() & golden.options.keys() - VARYING
    return said + [
        f"option {code}: {found.options[code].hex()}, was {golden.options[code].hex()}"
        for code in sorted(both)
        if found.options[code] != golden.options[code]
    ]


def _capture(protocol: str, name: str) -> bytes:
    lines = (GOLDEN / protocol / name).read_text().splitlines()
    return bytes.fromhex("".join(line for line in lines if not line.startswith("#")))
