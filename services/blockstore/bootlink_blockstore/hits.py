"""The hit path: cached reads, answered from header to header with nothing made per command but its answer.

Theory of operation. While nothing stands before a plain read of logical unit 0 (no attention due, no gap in the
CmdSNs, no digest), the path is open, and `_answer_hits` takes a stream's commands as long as each is

    a READ(10) or READ(16) in its turn, with no other bit set than what every initiator sets for a read,
    of whole sectors on the disk, as many as the initiator announced, in one Data-In PDU,
    whose bytes `ClientDisk.hit` or `hit_blocks` has at hand.

It stops before the first that is anything else, which then goes the long way (`tasks`). Both ways answer the same.

Why it looks as it does. The whole of it is about 2.5 µs a command, so each step counts: one `Struct` takes a header
apart and one puts an answer together, with neighbouring fields in one value where they are compared or written
together (14 values each way cost as much again as everything else here). Constants are plain integers, as a
member of an IntEnum costs a look-up more; numbers live in locals until the last command is answered.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

from bootlink_blockstore.conversation import Conversation
from bootlink_blockstore.image import Buffer, Buffers
from bootlink_blockstore.scsi.device import Nexus
from bootlink_blockstore.sequence import MASK, Host
from bootlink_wire.iscsi_pdu import BHS, FINAL, NO_TAG, READ, STATUS, Opcode
from bootlink_wire.scsi_cdb import SECTOR, Op

# Of a SCSI command: all before the task tag, tag, expected length, CmdSN, the CDB's first two bytes, LBA, length.
_COMMAND: Final = Struct(">16sIII4xHIxH7x")
_RANGE_16: Final = Struct(">QI")  # LBA and length of a 16-byte CDB, from its byte 2
_RANGE_16_AT: Final = 34
# Of a Data-In with the status: opcode to length, both tags, StatSN, ExpCmdSN, MaxCmdSN.
_ANSWER: Final = Struct(">Q8xQIII12x")
_ANSWER_HEAD: Final = Opcode.DATA_IN << 56 | (FINAL | STATUS) << 48  # | length
_TTT: Final = int(NO_TAG)
_READ_10: Final = Op.READ_10 << 8  # the byte after it has DPO, FUA and protection bits: all 0
_READ_16: Final = Op.READ_16 << 8
# No data segment, no additional header, logical unit 0, and any task attribute but ACA.
_PLAIN: Final = frozenset(bytes((Opcode.SCSI_COMMAND, FINAL | READ | attribute)) + bytes(14) for attribute in range(4))
OPCODE_AT: Final = 32
READS: Final = frozenset((int(Op.READ_10), int(Op.READ_16)))


class Path(NamedTuple):
    """An open hit path: what logical unit 0 offers, and whose reads they are."""

    hit: Callable[[int, int], Buffer | None]
    hit_blocks: Callable[[int, int], Buffers | None]
    size: int
    nexus: Nexus


class Hits(Conversation):
    """A session's cached reads."""

    def __init__(self, host: Host, on_error: Callable[[str], None]) -> None:
        super().__init__(host, on_error)
        self._path: Path | None = None

    def _answer_hits(self, path: Path, data: bytes, start: int, room: int) -> tuple[int, int]:
        """Answer the hits at the front of data[start:], until `room` bytes are put out.

        Returns where the first command begins that is not answered, and the bytes put out.
        """
        hit, hit_blocks, size, nexus = path
        unpack, pack, tasks, out = _COMMAND.unpack_from, _ANSWER.pack, self.tasks, self.out
        expected, highest, statsn = self._exp_cmdsn, self._max_cmdsn, self._statsn
        parameters = self.parameters
        position, last, put = start, len(data) - BHS, 0
        while position <= last and put < room:
            head, itt, length, cmdsn, op, lba, sectors = unpack(data, position)
            if op != _READ_10:
                if op != _READ_16:
                    break
                lba, sectors = _RANGE_16.unpack_from(data, position + _RANGE_16_AT)
            offset = lba * SECTOR
            if (
                cmdsn != expected
                or head not in _PLAIN
                or length != sectors * SECTOR
                or not length
                or length > parameters.receive_limit
                or length > parameters.max_burst
                or offset + length > size
                or itt in tasks
            ):
                break
            view = hit(offset, length)
            found = hit_blocks(offset, length) if view is None else [view]
            if found is None:
                break
            expected = expected + 1 & MASK
            highest = highest + 1 & MASK
            out.append(pack(_ANSWER_HEAD | length, itt << 32 | _TTT, statsn, expected, highest))
            out += found
            statsn = statsn + 1 & MASK
            position += BHS
            put += length
        if put:
            nexus.reads += (position - start) // BHS
            nexus.bytes_read += put
            nexus.last_io = self.now
            if nexus.first_read is None:
                nexus.first_read = self.now
            self._exp_cmdsn, self._max_cmdsn, self._statsn = expected, highest, statsn
        return position, put
