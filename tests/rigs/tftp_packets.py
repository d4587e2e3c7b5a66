"""Hostile TFTP: requests, acknowledgements and noise against the service itself, on a real socket.

Each case is one client at a port of its own: it asks for something, perhaps with a broken request, and then answers
what comes as a client does, or wrongly, or not at all. What must hold, whatever is sent:

    the codec raises TftpMalformed or nothing; no request makes the service fail within (`tftp_internal_errors`)
    nothing answers an ERROR; what else is answered is an OACK, DATA or an ERROR, each a whole packet
    who has not shown that it is there is sent at most `LEVER` times what it sent itself, in octets
    transfers stay within the service's limits, and at the end all of them are over
    meanwhile, and afterwards, a PC fetches its loader whole
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from pathlib import Path
from random import Random
from typing import Final

from bootlink_runtime import Chassis
from bootlink_wire import tftp
from bootlink_wire.tftp import TftpMalformed
from lab.boot_plans import BOOT_ID
from lab.golden import GOLDEN, tftp_capture
from lab.tftp import Address, address_of, get, loader_bytes, serving
from rigs.figures import Figures, Violation

AT_ONCE: Final = 24  # cases
STEPS: Final = 12  # datagrams of one case
SILENCE: Final = 0.1  # seconds without an answer after which a case goes on
TRANSFERS: Final = 64  # the service's limit during this rig
BLOCK_LARGEST: Final = 1468
# A request of 20 octets may be answered with an OACK, or one block; each is repeated for each repeat of the request.
LEVER: Final = (BLOCK_LARGEST + 4) / 12
LOADER, LOADER_SIZE = "undionly.kpxe", 74_213
NAMES: Final = (
    b"undionly.kpxe", b"\\UNDIONLY.KPXE\xff\xff", b"tiny", b"snponly.efi", b"none", b"../../etc/passwd", b"/etc/passwd",
    b"..\\..\\x", b"%2e%2e/x", b"a" * 500, b"/" * 200, b"\xff" * 40, b".", b"..", b"C:\\x", b"//host/x", b"loaders",
    f"boot/{BOOT_ID}/undionly.kpxe".encode(), f"boot/{BOOT_ID}/52-54-00-00-00-01.ipxe".encode(),
    f"boot/{BOOT_ID}/autoexec.ipxe".encode(), b"52-54-00-00-00-01.attach.ipxe", b"boot//x",
    b"boot/" + b"0" * 36 + b"/x",
)  # fmt: skip
OPTIONS: Final = (
    ("blksize", "1468"), ("blksize", "8"), ("blksize", "0"), ("blksize", "65464"), ("blksize", "99999999999999999999"),
    ("blksize", "abc"), ("blksize", "-1"), ("tsize", "0"), ("tsize", "x"), ("timeout", "1"), ("timeout", "255"),
    ("windowsize", "16"), ("windowsize", "0"), ("windowsize", "65535"), ("multicast", ""), ("x" * 100, "y" * 100),
)  # fmt: skip


class Case:
    """One client."""

    def __init__(self, random: Random, server: Address) -> None:
        self.random = random
        self.server = server
        self.seen: Counter[str] = Counter()
        self._mute = random.random() < 0.3  # never shows that it is there

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.bind((f"127.0.0.{self.random.randrange(1, 64)}", 0))
            sent, got, to = 0, 0, self.server
            datagram = self._request()
            for _ in range(STEPS):
                with contextlib.suppress(OSError):  # the port of a transfer that is over
                    await loop.sock_sendto(sock, datagram, to)
                sent += len(datagram)
                answer = None
                with contextlib.suppress(TimeoutError, ConnectionError):
                    async with asyncio.timeout(SILENCE):
                        answer, to = await loop.sock_recvfrom(sock, 65_536)
                if answer is not None:
                    got += len(answer)
                    self._look(answer)
                if self._mute:
                    to = self.server
                elif answer is None and self.random.random() < 0.5:
                    break
                datagram = self._next(answer)
            if self._mute and got > sent * LEVER:
                raise Violation(f"{got} octets for {sent}, to somebody who may not be there")
            if not self._mute and self.random.random() < 0.5:
                with contextlib.suppress(OSError):
                    await loop.sock_sendto(sock, tftp.encode(tftp.Error(0, "enough")), to)

    def _look(self, answer: bytes) -> None:
        packet = tftp.decode(answer)
        if not isinstance(packet, tftp.OptionAck | tftp.Data | tftp.Error):
            raise Violation(f"{packet} from a server that only sends")
        if isinstance(packet, tftp.Data) and len(packet.payload) > BLOCK_LARGEST:
            raise Violation(f"a block of {len(packet.payload)} octets")
        self.seen[type(packet).__name__] += 1

    def _request(self) -> bytes:
        random = self.random
        if random.random() < 0.15:
            datagram = tftp_capture(random.choice(sorted(path.name for path in (GOLDEN / "tftp").glob("*rrq*.hex"))))
        else:
            kind = tftp.ReadRequest if random.random() < 0.9 else tftp.WriteRequest
            options = tuple(random.choices(OPTIONS, k=random.randrange(5)))
            mode = random.choice(("octet", "octet", "octet", "netascii", "mail", "OCTET"))
            datagram = tftp.encode(kind(random.choice(NAMES), mode, options))
        return self._mutated(datagram)

    def _next(self, answer: bytes | None) -> bytes:
        random = self.random
        if self._mute:
            return self._request() if random.random() < 0.5 else self._mutated(b"\0\1tiny\0octet\0")
        block = struct.unpack("!H", answer[2:4])[0] if answer is not None and answer[:2] == b"\0\3" else 0
        right = tftp.encode(tftp.Ack(block))
        wrong = random.choice(
            (
                tftp.encode(tftp.Ack(random.choice((0, 1, block + 1 & 0xFFFF, 0xFFFF, random.randrange(65536))))),
                tftp.encode(tftp.Data(1, b"x" * 600)),
                tftp.encode(tftp.Error(random.randrange(65536), "\x1b[2J" + "x" * 300)),
                tftp.encode(tftp.OptionAck((("blksize", "1"),))),
                self._request(),
                random.randbytes(random.choice((0, 1, 2, 3, 4, 5, 100, 1500))),
            )
        )
        return self._mutated(right) if random.random() < 0.7 else wrong

    def _mutated(self, datagram: bytes) -> bytes:
        random = self.random
        if random.random() < 0.7 or not datagram:
            return datagram
        mutant = bytearray(datagram)
        kind = random.choice(("bits", "cut", "long", "opcode", "nul"))
        self.seen[f"mutated: {kind}"] += 1
        match kind:
            case "bits":
                for _ in range(random.randrange(1, 6)):
                    mutant[random.randrange(len(mutant))] ^= 1 << random.randrange(8)
            case "cut":
                del mutant[random.randrange(len(mutant)) :]
            case "long":
                mutant += random.choice((b"\0", b"x", b"a\0")) * random.choice((1, 200, 2000))
            case "opcode":
                mutant[:2] = random.choice((0, 2, 3, 4, 5, 6, 7, 255, 65535)).to_bytes(2, "big")
            case "nul":
                mutant = mutant.replace(b"\0", b"", random.randrange(1, 3))
        return bytes(mutant)


def decoded(random: Random) -> None:
    """One datagram through the codec, in memory."""
    case = Case(random, ("", 0))
    datagram = case._mutated(case._request()) if random.random() < 0.7 else case._next(None)
    try:
        tftp.decode(datagram)
    except TftpMalformed as error:
        if error.answer is not None and datagram[:2] == b"\0\5":
            raise Violation(f"an ERROR for an ERROR: {datagram.hex()}") from error


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` cases against one service, `AT_ONCE` at a time, while a PC fetches its loader again and again."""
    return asyncio.run(_run(count, seed, folder))


async def _run(count: int, seed: int, folder: Path) -> Figures:
    seen: Counter[str] = Counter()
    async with serving(folder, transfers_max=TRANSFERS) as chassis:
        server = address_of(chassis)
        for number in range(count):
            decoded(Random(f"{seed}/decoded/{number}"))
        numbers = iter(range(count))

        async def client() -> None:
            for number in numbers:
                case = Case(Random(f"{seed}/{number}"), server)
                try:
                    await case.run()
                except Exception as error:
                    raise Violation(f"case {number} of seed {seed}: {error!r}") from error
                seen.update(case.seen)
                _within_limits(chassis)

        fetched = 0
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(client()) for _ in range(AT_ONCE)]
            while not all(one.done() for one in clients):
                await _fetch(server)
                fetched += 1
        await _fetch(server)
        await _at_rest(chassis)
    return {
        "datagrams mutated": sum(n for name, n in seen.items() if name.startswith("mutated")),
        "OACKs": seen["OptionAck"],
        "blocks": seen["Data"],
        "ERRORs": seen["Error"],
        "loaders that a PC fetched meanwhile": fetched,
    }


def _within_limits(chassis: Chassis) -> None:
    failures = chassis.health.counters["tftp_internal_errors"]
    if failures:
        raise Violation(f"{failures} requests failed within the service")
    busy = _busy(chassis)
    if busy > TRANSFERS:
        raise Violation(f"{busy} transfers at once, where {TRANSFERS} are allowed")


async def _fetch(server: Address) -> None:
    if await get(server, LOADER, options=(("blksize", "1432"),), source="127.0.0.200") != loader_bytes(LOADER_SIZE):
        raise Violation("the loader did not arrive as it is")


async def _at_rest(chassis: Chassis) -> None:
    """All transfers end by themselves: their clients have gone."""
    try:
        async with asyncio.timeout(30):
            while _busy(chassis):
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise Violation(f"{_busy(chassis)} transfers never end") from None


def _busy(chassis: Chassis) -> int:
    detail = str(chassis.health.report()["checks"]["transfers"]["detail"])
    return int(detail.split()[0])
