"""The tftp service in a test's own event loop, and a small TFTP client to talk to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from bootlink_events import BootPlan, mac_token
from bootlink_runtime import Chassis, running
from bootlink_tftp import SERVICE, TftpSettings
from bootlink_wire import tftp
from bootlink_wire.tftp import Options

Address = tuple[str, int]

NO_NATS = "nats://127.0.0.1:1"
WAIT = 20.0
RESEND = 0.5


def loaders(folder: Path) -> Path:
    """A folder with loaders of known contents: `loader_bytes`."""
    made = folder / "loaders"
    made.mkdir(exist_ok=True)
    for name, size in (("undionly.kpxe", 74_213), ("snponly.efi", 1468 * 100), ("tiny", 10)):
        (made / name).write_bytes(loader_bytes(size))
    return made


def loader_bytes(size: int) -> bytes:
    return bytes((index * 7 + index // 256) % 256 for index in range(size))


def snapshot(data: Path, *plans: BootPlan) -> None:
    """Let the service start with these plans, as after a restart without NATS."""
    folder = data / "tftp"
    folder.mkdir(parents=True, exist_ok=True)
    entries = {mac_token(plan.mac): plan.model_dump_json() for plan in plans}
    (folder / "plans.json").write_text(json.dumps({"entries": entries}))


@contextlib.asynccontextmanager
async def serving(folder: Path, **settings: Any) -> AsyncIterator[Chassis]:
    """The service on a free port of 127.0.0.1, without NATS unless `nats_url` is given."""
    values: dict[str, Any] = {
        "data": folder / "data",
        "node": "lab",
        "nats_url": NO_NATS,
        "host": "127.0.0.1",
        "port": 0,
        "loaders": str(loaders(folder)),
    }
    async with running(SERVICE, TftpSettings(**(values | settings))) as chassis:
        yield chassis


def address_of(chassis: Chassis, what: str = "tftp") -> Address:
    """Where it takes requests; "http": those over HTTP."""
    (found,) = [address for address in chassis.health.addresses if address.what == what]
    return found.host, found.port


class Refused(Exception):
    """The server's ERROR."""

    def __init__(self, error: tftp.Error) -> None:
        super().__init__(error.message)
        self.code = error.code
        self.message = error.message


async def get(
    server: Address, name: str | bytes, *, options: Options = (), source: str = "127.0.0.1", mode: str = "octet"
) -> bytes:
    """Fetch a file, as a plain RFC 1350 and 2347 client without windows does. Raises Refused."""
    loop = asyncio.get_running_loop()
    raw = name.encode() if isinstance(name, str) else name
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.bind((source, 0))
        last, to = tftp.encode(tftp.ReadRequest(raw, mode, options)), server
        await loop.sock_sendto(sock, last, to)
        got, block_size = bytearray(), 512
        expected = 1
        async with asyncio.timeout(WAIT):
            while True:
                try:
                    async with asyncio.timeout(RESEND):
                        datagram, to = await loop.sock_recvfrom(sock, 65_536)
                except TimeoutError:
                    await loop.sock_sendto(sock, last, to)
                    continue
                packet = tftp.decode(datagram)
                if isinstance(packet, tftp.Error):
                    raise Refused(packet)
                if isinstance(packet, tftp.OptionAck):
                    block_size = int(dict(packet.options).get("blksize", 512))
                    last = tftp.encode(tftp.Ack(0))
                elif isinstance(packet, tftp.Data):
                    fresh = packet.block == expected & 0xFFFF
                    if fresh:
                        got += packet.payload
                        expected += 1
                    last = tftp.encode(tftp.Ack((expected - 1) & 0xFFFF))
                    if fresh and len(packet.payload) < block_size:
                        await loop.sock_sendto(sock, last, to)
                        return bytes(got)
                await loop.sock_sendto(sock, last, to)
