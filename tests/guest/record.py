"""`python -m guest.record`: the demo PC boots once, and what it reads of its disk becomes tests/golden/boot-reads.csv.

    cd tests && ../.venv/bin/python -m guest.record [FILE]

The block store is told to advertise another address of the server, where a relay listens that passes every byte on
and notes the READs that go by. So neither firmware nor operating system nor block store is changed for it, and the
reads are those of a real boot: iPXE's for SeaBIOS and GRUB, then open-iscsi's for the kernel's file system, up to the
login prompt. Needs root, like the demo. See `lab.boot_reads` for the file's format and who plays it back.
"""

import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from bootlink_disks import probe
from bootlink_wire.iscsi_inbox import Inbox
from bootlink_wire.iscsi_pdu import BHS, LoginRequest, ScsiCommand, decode, lengths
from bootlink_wire.scsi_cdb import SECTOR, Op, blocks
from guest.demo import CACHE, IMAGE
from guest.disk import build_disk
from guest.lan import Lan
from guest.pc import PC, Reached
from guest.system import System
from guest.toolbox import BuildError
from lab.boot_reads import GOLDEN, BootRead, BootReads

MAC = "52:54:00:b0:07:21"
SERVER, RELAY = "10.77.0.1", "10.77.0.2"  # below what dhcp hands out, which is the upper half of the network
PORT = 3260
CHUNK = 1 << 16
FIRMWARE = b"MaxRecvDataSegmentLength=8192\0"  # bytes: what iPXE, and nobody else, declares
READS = (Op.READ_6, Op.READ_10, Op.READ_12, Op.READ_16)


class Listener:
    """Follows what one initiator sends, and notes its reads with the milliseconds since `began`."""

    def __init__(self, began: float, reads: list[BootRead]) -> None:
        self._began = began
        self._reads = reads
        self._inbox = Inbox()
        self._initiator = ""

    def hear(self, chunk: bytes) -> None:
        data = self._inbox.take(chunk)
        if data is None:
            return
        at, needed = 0, BHS
        while len(data) - at >= BHS:
            ahs, size = lengths(data, at)
            needed = BHS + ahs + size + (-size & 3)
            if len(data) - at < needed:
                break
            self._note(data[at : at + BHS], data[at + BHS + ahs : at + BHS + ahs + size])
            at, needed = at + needed, BHS
        self._inbox.keep(data, at, needed)

    def _note(self, header: bytes, data: bytes) -> None:
        pdu = decode(header, data)
        if isinstance(pdu, LoginRequest):
            self._initiator = "firmware" if FIRMWARE in data else self._initiator or "os"
        elif isinstance(pdu, ScsiCommand) and pdu.cdb[0] in READS:
            place = blocks(pdu.cdb)
            milliseconds = int((time.monotonic() - self._began) * 1000)
            self._reads.append(BootRead(milliseconds, place.lba * SECTOR, place.sectors * SECTOR, self._initiator))


async def relay(out: Path, size: int) -> None:
    """Pass connections to RELAY on to the block store until this process is told to stop; then write `out`."""
    reads: list[BootRead] = []
    began = time.monotonic()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        listener = Listener(began, reads)
        far_reader, far_writer = await asyncio.open_connection(SERVER, PORT)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(far_reader, writer))
                while chunk := await reader.read(CHUNK):
                    listener.hear(chunk)
                    far_writer.write(chunk)
                    await far_writer.drain()
                far_writer.close()
        finally:
            far_writer.close()
            writer.close()

    serving: set[asyncio.Task[None]] = set()
    async with await asyncio.start_server(lambda *ends: serving.add(asyncio.create_task(serve(*ends))), RELAY, PORT):
        await asyncio.to_thread(sys.stdin.read)
    for task in serving:
        task.cancel()
    # A connection that was reset is no news: a PC that restarts leaves its firmware's connection behind.
    await asyncio.gather(*serving, return_exceptions=True)
    first = reads[0].milliseconds if reads else 0
    played = tuple(read._replace(milliseconds=read.milliseconds - first) for read in reads)
    out.write_text(BootReads(size, played).dump())


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def relaying(lan: Lan, out: Path, size: int) -> AsyncIterator[None]:
    """`relay` in a process of its own on the LAN, for the length of the block. It ends when its stdin does."""
    process = await asyncio.create_subprocess_exec(
        *lan.command(sys.executable, "-m", "guest.record", "--relay", str(out), str(size)),
        stdin=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdin is not None
    try:
        yield
    finally:
        process.stdin.close()
        await process.wait()


async def record(out: Path, folder: Path) -> BootReads:
    """Boot once and write the reads to `out`."""
    disk = await asyncio.to_thread(build_disk, CACHE)
    recorded = folder / "reads"
    with Lan(f"{SERVER}/24") as lan:
        lan.also(f"{RELAY}/24")
        async with System(lan, folder / "data", settings={"BOOTLINK_BLOCKSTORE_ADVERTISE": RELAY}) as system:
            await system.command("image", "add", IMAGE, str(disk))
            await system.command("link", "set", "--default", IMAGE)
            await system.command("client", "add", MAC, "--name", "recorded")
            async with relaying(lan, recorded, probe(disk).virtual_size):

                def reached(stage: Reached) -> None:
                    sys.stdout.write(f"{stage.stage:<20} +{stage.seconds:.1f} s\n")

                async with PC(lan, MAC, folder, on_reached=reached) as pc:
                    await pc.boot()
    reads = BootReads.parse(recorded.read_text())
    if {read.initiator for read in reads.reads} != {"firmware", "os"}:
        raise BuildError(f"the boot did not go through the relay: {len(reads.reads)} reads; see {folder}")
    out.write_text(reads.dump())
    return reads


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--relay"]:
        asyncio.run(relay(Path(arguments[1]), int(arguments[2])))
        return 0
    out = Path(arguments[0]) if arguments else GOLDEN
    with tempfile.TemporaryDirectory(prefix="bootlink-record-") as folder:
        reads = asyncio.run(record(out.absolute(), Path(folder)))
    sys.stdout.write(f"{out}: {reads.described()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
