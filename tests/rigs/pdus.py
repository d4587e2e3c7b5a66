"""Hostile iSCSI: conversations as real initiators have them, broken in every way that bytes can be broken.

One case is one connection. An initiator of a random kind (iPXE's keys, open-iscsi's, discovery; with digests, with
CHAP) says what such initiators say, answers R2Ts and challenges, and any of its PDUs may be mutated: bits flipped, a
field set to an extreme, lengths of up to 16 MiB, additional headers of up to 1,020 bytes, another opcode, sent twice,
late, cut short, or a byte at a time. What must hold, whatever it sends:

    nothing raises; what is answered are whole PDUs of a target; firmware hears nothing that it would hang up on
    a session that has ended answers nothing more
    what the session holds stays below HELD_LIMIT, which is the sum of the limits that the code names

`assault` sends what the cases sent to a block store over TCP, while another client boots and reads.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from bootlink_blockstore.chap import Chap
from bootlink_blockstore.conversation import TEXT_LIMIT
from bootlink_blockstore.login import TEXT_LIMIT as LOGIN_TEXT_LIMIT
from bootlink_blockstore.scsi.device import LogicalUnit
from bootlink_blockstore.scsi.table import TABLE
from bootlink_blockstore.sequence import WINDOW
from bootlink_blockstore.session import OUTPUT_LIMIT
from bootlink_blockstore.tasks import IMMEDIATE_LIMIT, WRITE_BUFFER
from bootlink_events import BootId, ClusterKey
from bootlink_wire import iscsi_codes as codes
from bootlink_wire import iscsi_pdu as pdu
from bootlink_wire import iscsi_text as text
from bootlink_wire.iscsi_chap import ALGORITHMS, decode
from bootlink_wire.iscsi_codes import CONTINUE, FINAL, NO_TAG, LoginStatus, Opcode, TaskFunction
from bootlink_wire.iscsi_digest import NONE
from bootlink_wire.iscsi_pdu import BHS, Pdu
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_vpd import Identity
from lab.blockstore import MAC, Lab, digest, identity, make_image, plan, serving
from lab.iscsi import IPXE_ISID, IPXE_KEYS, OPEN_ISCSI_KEYS, Initiator, Speaker, read_10, read_16, write_10
from lab.session_bench import Bench, MemoryDisk, unit
from rigs.figures import Figures, Violation

STEPS: Final = 24  # PDUs of one case, at most
DISK_SIZE: Final = 1 << 20
LARGEST_PDU: Final = BHS + 1020 + 4 + text.RECEIVE_LIMIT + 8
# What the limits of session, tasks and texts come to, with one PDU that is not whole and one that is being answered.
HELD_LIMIT: Final = (
    2 * LARGEST_PDU
    + 2 * WRITE_BUFFER  # solicited data, and that of commands ahead of their turn
    + (WINDOW + IMMEDIATE_LIMIT) * text.FIRST_BURST
    + 2 * OUTPUT_LIMIT
    + TEXT_LIMIT
    + LOGIN_TEXT_LIMIT
)
EXTREMES: Final = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
SIZES: Final = (0, 1, 3, 4, 48, 511, 512, 8191, 8192, 8193, 65536, 262144, 262145, (1 << 24) - 1)
TEXTS: Final = (
    b"SendTargets=All\0",
    b"SendTargets=\0",
    b"MaxRecvDataSegmentLength=512\0",
    b"MaxRecvDataSegmentLength=0\0",
    b"=\0",
    b"no pair\0",
    b"\xff\xfe=\0",
    b"a=1\0" * 200,
    b"X-" + b"k" * 61 + b"=" + b"v" * 8192 + b"\0",
    b"\0" * 64,
)
CASES_PER_CONNECTION: Final = 20  # cases without a connection for one case over TCP
READS: Final = 8  # of the other client, during each round of the assault
KEY: Final = ClusterKey(b"k" * 32)


@dataclass
class Case:
    """One connection's life. `sent` is what went over it, `seen` what became of it."""

    random: Random
    units: dict[int, LogicalUnit]
    disk: MemoryDisk
    sent: bytearray = field(default_factory=bytearray)
    seen: Counter[str] = field(default_factory=Counter)
    most_held: int = 0

    def __post_init__(self) -> None:
        random = self.random
        self.firmware = self._chance(0.25)
        self.discovery = not self.firmware and self._chance(0.2)
        keys = dict(IPXE_KEYS if self.firmware else OPEN_ISCSI_KEYS)
        if not self.firmware:
            for name in ("HeaderDigest", "DataDigest"):
                keys[name] = random.choice(["None", "None", "CRC32C", "CRC32C,None"])
            keys["InitialR2T"] = random.choice(["Yes", "No"])
            keys["ImmediateData"] = random.choice(["Yes", "No"])
            keys["MaxBurstLength"] = str(random.choice([512, 8192, 262144, 16776192]))
            keys["MaxRecvDataSegmentLength"] = str(random.choice([512, 8192, 262144]))
        boot = BootId.parse("01a206f2-72e2-7b5b-b3af-df7cc1fbeb41")
        speaker = Speaker(
            name=identity(boot),
            isid=IPXE_ISID if self.firmware else random.randbytes(6),
            cmdsn=random.choice([0, 1, 0xFFFFFFF8]),
            keys=list(keys.items()),
        )
        self.bench = Bench(speaker, self.units, self.disk)
        self.known = KEY.credentials(MAC, boot)
        if self._chance(0.3):
            self.bench.exchange = Chap(self.known, mutual=self._chance(0.5), random=random.randbytes)
        self.later: list[bytes] = []
        self.heard: list[Pdu] = []

    def run(self) -> None:
        """Live it. Violation where what must hold does not."""
        for wanted in self._login():
            if not self._say(wanted):
                break
        for _ in range(self.random.randrange(STEPS)):
            if self.bench.session.closing or not self._say(self._next()):
                break
        self.bench.session.tick(self.random.choice([1.0, 20.0, 100.0]))
        self._look()
        self.bench.session.close("the case is over")
        self._finish(1.0)
        if self.bench.session.busy or self.bench.session.tasks:
            raise Violation("a session that has ended has tasks")

    def _chance(self, share: float) -> bool:
        """True in this share of cases; False where a random number is the least, so that a found case shrinks."""
        return self.random.random() >= 1 - share

    # What it says

    def _login(self) -> list[Pdu]:
        """Requests of a login, in order; what depends on answers is left to `_proof`."""
        speaker, random = self.bench.speaker, self.random
        if self.bench.exchange is None and self._chance(0.6):
            return [speaker.login(discovery=self.discovery)]
        kind = [("SessionType", "Discovery")] if self.discovery else [("TargetName", speaker.target)]
        first = [("InitiatorName", speaker.name), *kind, ("AuthMethod", random.choice(["CHAP,None", "None", "CHAP"]))]

        def request(flags: int, pairs: list[tuple[str, str]]) -> Pdu:
            return pdu.LoginRequest(
                flags=flags, isid=speaker.isid, itt=7, cmdsn=speaker.cmdsn, data=text.encode(pairs), immediate=True
            )

        to_operational, to_full = FINAL | 0 << 2 | 1, FINAL | 1 << 2 | 3
        if self.bench.exchange is None:
            return [request(to_operational, first), request(to_full, speaker.keys)]
        return [
            request(random.choice([0, to_operational]), first),
            request(0, [("CHAP_A", random.choice(["5", "7,5", "8", "99", "x"]))]),
            request(to_operational, []),  # the proof goes in here
            request(to_full, speaker.keys),
        ]

    def _proof(self) -> bytes:
        """Our CHAP response to the challenge that was heard last; sometimes with a challenge of our own."""
        for heard in reversed(self.heard):
            if isinstance(heard, pdu.LoginResponse) and b"CHAP_C" in heard.data:
                asked = dict(text.parse(heard.data))
                algorithm = ALGORITHMS[int(asked["CHAP_A"])]
                answer = algorithm.response(int(asked["CHAP_I"]), self.known.secret.encode(), decode(asked["CHAP_C"]))
                pairs = [("CHAP_N", self.known.user), ("CHAP_R", f"0x{answer.hex()}")]
                if self._chance(0.4):
                    pairs += [("CHAP_I", "7"), ("CHAP_C", f"0x{self.random.randbytes(16).hex()}")]
                return text.encode(pairs)
        return b""

    def _next(self) -> Pdu:
        """Something that an initiator says in full-feature phase."""
        speaker, random = self.bench.speaker, self.random
        for heard in self.heard:
            if isinstance(heard, pdu.ReadyToTransfer) and self._chance(0.8):
                self.heard.remove(heard)
                size = min(heard.desired, text.RECEIVE_LIMIT)
                final = FINAL if size == heard.desired or self._chance(0.2) else 0
                return pdu.DataOut(flags=final, itt=heard.itt, ttt=heard.ttt, offset=heard.offset, data=bytes(size))
        lba, sectors = random.choice([0, 1, 8, 1000, 2047, 2048, 0xFFFFFFFF]), random.choice([0, 1, 8, 64, 300, 2048])
        expected = random.choice([sectors * SECTOR, 0, 512, 0xFFFFFFFF]) & 0xFFFFFFFF
        size = random.choice([0, min(expected, 4096), min(expected, 65536)])
        match random.randrange(12):
            case 0 | 1:
                return speaker.command(random.choice([read_10, read_16])(lba, sectors), expected=expected)
            case 2 | 3 | 4:
                final = self._chance(0.6)
                data = bytes(size)
                cdb = write_10(lba, sectors, fua=self._chance(0.2))
                return speaker.command(cdb, expected=expected, write=True, data=data, final=final)
            case 5:
                cdb = bytes([random.randrange(256)]) + random.randbytes(15)
                return speaker.command(cdb, expected=expected, write=self._chance(0.5), lun=random.choice([0, 0, 9]))
            case 6:
                wanted = random.choice([*TaskFunction, 0, 99])
                return speaker.task(wanted & 0x7F, referenced=speaker.itt, refcmdsn=speaker.cmdsn)
            case 7:
                return pdu.NopOut(itt=random.choice([speaker.tag(), NO_TAG]), cmdsn=speaker.cmdsn, immediate=True)
            case 8:
                ttt = next((h.ttt for h in self.heard if isinstance(h, pdu.TextResponse)), NO_TAG)
                flags = random.choice([FINAL, FINAL, 0, CONTINUE])
                return pdu.TextRequest(
                    flags=flags, itt=3, ttt=ttt, cmdsn=speaker.cmdsn, immediate=True, data=random.choice(TEXTS)
                )
            case 9:
                return pdu.DataOut(itt=speaker.itt, datasn=random.randrange(3), offset=size, data=bytes(size))
            case 10 if self._chance(0.3):
                return pdu.LogoutRequest(reason=FINAL | random.randrange(4), itt=speaker.tag(), cmdsn=speaker.cmdsn)
            case _:
                return speaker.command(bytes(6), immediate=self._chance(0.3))

    # What it does to it

    def _say(self, wanted: Pdu) -> bool:
        """Send a PDU, perhaps mutated. False once the session has ended."""
        if isinstance(wanted, pdu.LoginRequest) and not wanted.data and self.bench.exchange is not None:
            wanted = replace(wanted, data=self._proof())
        stream = b"".join((self.bench.session.digests or NONE).seal([wanted.encode()]))
        for piece in self._mutated(stream):
            for chunk in self._chunks(piece):
                self._receive(chunk)
                if self.bench.session.closing:
                    return False
        return True

    def _mutated(self, stream: bytes) -> list[bytes]:
        random = self.random
        if not self._chance(0.25):
            late, self.later = self.later, []
            return [stream, *late]
        mutant = bytearray(stream)
        kind = random.choice(
            ["bits", "field", "size", "ahs", "opcode", "twice", "late", "cut", "noise", "empty", "drop"]
        )
        self.seen[f"mutated: {kind}"] += 1
        match kind:
            case "bits":
                for _ in range(random.randrange(1, 8)):
                    mutant[random.randrange(len(mutant))] ^= 1 << random.randrange(8)
            case "field":
                at = random.choice(range(8, BHS, 4))
                mutant[at : at + 4] = random.choice(EXTREMES).to_bytes(4, "big")
            case "size":
                mutant[5:8] = random.choice(SIZES).to_bytes(3, "big")
            case "ahs":
                mutant[4] = random.choice([1, 2, 254, 255])
            case "opcode":
                mutant[0] = random.choice([*Opcode, *range(0x40)]) | random.choice([0, codes.IMMEDIATE, 0x80])
            case "twice":
                return [stream, stream]
            case "late":
                self.later.append(stream)
                return []
            case "cut":
                del mutant[random.randrange(len(mutant)) :]
            case "noise":
                mutant += random.randbytes(random.choice([1, 47, 48, 500]))
            case "empty":
                return [stream, bytes(BHS)]
            case "drop":
                return []
        return [bytes(mutant)]

    def _chunks(self, piece: bytes) -> list[bytes]:
        if len(piece) < 400 and self._chance(0.1):
            return [piece[at : at + 1] for at in range(len(piece))]  # slow-loris
        if self._chance(0.2) and piece:
            cut = self.random.randrange(len(piece))
            return [piece[:cut], piece[cut:]]
        return [piece]

    # What it hears

    def _receive(self, chunk: bytes) -> None:
        session = self.bench.session
        self.sent += chunk
        self.disk.slow = self._chance(0.3)
        session.receive(chunk, 1.0)
        for _ in range(200):
            self._look()
            if session.closing:
                return
            if session.held and not session.full_feature:
                self._decide()
            elif session.crowded or (self.bench.started and self._chance(0.5)):
                self._finish(0.5 if not session.crowded else 1.0)
                session.receive(b"")
            elif session.more:
                session.receive(b"")
            else:
                return
        raise Violation("a session that never comes to rest")

    def _decide(self) -> None:
        session = self.bench.session
        if self._chance(0.1):
            session.refuse(LoginStatus.NOT_FOUND, "the case wants it so")
            return
        assert session.admission is not None
        units = {} if session.admission.discovery else self.units
        if self.bench.exchange is not None and not session.admission.proved:
            raise Violation("a login came through without the proof that was asked for")
        session.admit(units, LogicalUnit(TABLE, Identity("", 0), (0,)), 1)
        self.seen["logged in"] += 1
        self._look()
        session.resume()

    def _finish(self, share: float) -> None:
        """Let some of what was started end, in any order."""
        while self.bench.started and self._chance(share):
            task, running = self.bench.started.pop(self.random.randrange(len(self.bench.started)))
            self.bench.session.finish(task, _result(running))
        self._look()

    def _look(self) -> None:
        """Check what is held and what was answered."""
        bench = self.bench
        ended = bench.session.closing == "the case is over"
        self.most_held = max(self.most_held, held(bench))
        if self.most_held > HELD_LIMIT:
            raise Violation(f"a session holds {self.most_held} bytes, where its limits come to {HELD_LIMIT}")
        for answer in bench.answers():
            if ended or answer.OPCODE < Opcode.NOP_IN:
                raise Violation(f"{answer} from a target{' that has ended' if ended else ''}")
            unasked = isinstance(answer, pdu.Reject | pdu.AsyncMessage) or (
                isinstance(answer, pdu.NopIn) and answer.itt == NO_TAG
            )
            if unasked and bench.session.full_feature and bench.session.firmware:
                raise Violation(f"{answer} to firmware")
            self.seen[type(answer).__name__] += 1
            if isinstance(answer, pdu.LoginResponse) and answer.status == 0:
                bench.speaker.cmdsn = answer.expcmdsn
            self.heard = [*self.heard[-20:], answer]


def held(bench: Bench) -> int:
    """Bytes that a session holds of what its peer sent, and of what it has to send."""
    session = bench.session
    tasks = sum(len(task._data) + len(task.whole or b"") for task in session.tasks.values())
    texts = len(session._question) + len(session._answer_left) + len(session._login._text) + len(session._login._reply)
    return session._inbox.held + session._early_bytes + tasks + texts + sum(map(len, session.out))


def _result(running: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that waits for nothing comes to."""
    try:
        running.send(None)
    except StopIteration as done:
        return done.value
    raise Violation("a disk in memory waits for something")


def case(random: Random, disk: MemoryDisk) -> Case:
    """One case, lived."""
    one = Case(random, {0: unit(disk)}, disk)
    try:
        one.run()
    finally:
        for _, running in one.bench.started:  # of a case that was broken off
            _result(running)
    return one


async def assault(lab: Lab, streams: list[bytes], other: str) -> int:
    """Send each stream over a connection of its own while another client reads. Returns the reads that it had."""

    async def attack(stream: bytes) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection(lab.host, lab.port)
            try:
                writer.write(stream)
                async with asyncio.timeout(0.2):
                    while await reader.read(1 << 16):
                        pass
            finally:
                writer.close()

    pc = await Initiator.logged_in(
        lab.host, lab.port, name=identity(BootId.mint(), other), target=lab.plans[other].target
    )
    attackers = [asyncio.create_task(attack(stream)) for stream in streams]
    reads = 0
    try:
        while reads < READS or not all(attacker.done() for attacker in attackers):
            async with asyncio.timeout(10):
                await pc.read(reads % 64 * 4096, 4096)
            reads += 1
    finally:
        await asyncio.gather(*attackers)
        await pc.close()
    unforeseen = {name: n for name, n in lab.told.counters.items() if name.endswith("_unforeseen")}
    if unforeseen:
        raise Violation(f"errors that nobody foresaw: {unforeseen}")
    return reads


def run(count: int, seed: int, folder: Path) -> Figures:
    """`count` cases, and a part of what they sent over TCP besides."""
    seen: Counter[str] = Counter()
    most = 0
    streams: list[bytes] = []
    disk = MemoryDisk(DISK_SIZE)
    for number in range(count):
        try:
            one = case(Random(f"{seed}/{number}"), disk)
        except Exception as error:
            raise Violation(f"case {number} of seed {seed}: {error!r}") from error
        seen += one.seen
        most = max(most, one.most_held)
        if number % CASES_PER_CONNECTION == 0:
            streams.append(bytes(one.sent))
    reads = asyncio.run(_over_tcp(streams, folder))
    return {
        "PDUs mutated": sum(n for name, n in seen.items() if name.startswith("mutated")),
        "logins": seen["logged in"],
        "rejects": seen["Reject"],
        "MiB held at most by one session": round(most / (1 << 20), 2),
        "connections over TCP": len(streams),
        "reads of another client meanwhile": reads,
    }


async def _over_tcp(streams: list[bytes], folder: Path) -> int:
    other = "52:54:00:00:00:02"
    base = make_image(folder / "base.img", DISK_SIZE)
    before = digest(base)
    reads = 0
    async with serving(folder, plan(base), plan(base, mac=other)) as lab:
        for at in range(0, len(streams), 16):  # fewer at once than one address may have
            reads += await assault(lab, streams[at : at + 16], other)
    if digest(base) != before:
        raise Violation("the image's bytes have changed")
    return reads
