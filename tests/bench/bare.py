"""The bare server in Python: what a read costs on uvloop when nothing is done but what loop.c does.

It tells how much of the way from C to the block store is Python's and uvloop's own. Like loop.c it believes all that it
is sent, knows no errors, has no cache to keep and no session to count for: `python -m bench.bare FILE`.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from struct import Struct
from typing import Final, cast

import uvloop

from bootlink_wire.iscsi_codes import FINAL, NO_TAG, STATUS, Opcode
from bootlink_wire.iscsi_pdu import BHS
from bootlink_wire.scsi_cdb import Op

BLOCK_BITS: Final = 15
MASK: Final = (1 << BLOCK_BITS) - 1
WINDOW: Final = 64
COMMAND: Final = Struct(">B15xIII4xBxIxH7x")  # opcode, task tag, expected length, CmdSN, operation code, LBA, blocks
ANSWER: Final = Struct(">BBHIQQIII12x")
LOGGED_IN: Final = FINAL | 1 << 2 | 3
READ_10: Final = int(Op.READ_10)
DATA_IN: Final = int(Opcode.DATA_IN)


class Bare(asyncio.Protocol):
    """One connection."""

    blocks: dict[int, bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.statsn = 1

    def data_received(self, data: bytes) -> None:
        out: list[bytes | memoryview] = []
        position, end = 0, len(data)
        while end - position >= BHS:
            opcode, itt, length, cmdsn, op, lba, _ = COMMAND.unpack_from(data, position)
            tags = itt << 32 | NO_TAG
            if opcode == Opcode.SCSI_COMMAND and op == READ_10:
                flags = FINAL | STATUS
                out.append(ANSWER.pack(DATA_IN, flags, 0, length, 0, tags, self.statsn, cmdsn + 1, cmdsn + WINDOW))
                offset = lba << 9
                while length:
                    at = offset & MASK
                    part = memoryview(self.blocks[offset >> BLOCK_BITS])[at : at + length]
                    out.append(part)
                    offset += len(part)
                    length -= len(part)
                position += BHS
            elif opcode == Opcode.SCSI_COMMAND:
                response = Opcode.SCSI_RESPONSE, FINAL, 0, 0, 0, itt << 32
                out.append(ANSWER.pack(*response, self.statsn, cmdsn + 1, cmdsn + WINDOW))
                position += BHS
            else:  # the login, which is a chunk of its own
                isid = int.from_bytes(data[8:14], "big") << 16 | 1
                response = Opcode.LOGIN_RESPONSE, LOGGED_IN, 0, 0, isid, itt << 32
                out.append(ANSWER.pack(*response, self.statsn, cmdsn, cmdsn + WINDOW))
                position = end
            self.statsn += 1
        self.transport.writelines(out)


async def serve(image: Path) -> None:
    data = image.read_bytes()
    Bare.blocks = {at >> BLOCK_BITS: data[at : at + MASK + 1] for at in range(0, len(data), MASK + 1)}
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", 0)
    print("port", server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
