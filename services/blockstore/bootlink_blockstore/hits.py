"""The fast paths: cached reads and small writes, answered from header to header with nothing made but their answers.

Theory of operation. While nothing stands before a plain read of logical unit 0 (no attention due, no gap in the
CmdSNs, no digest), the path is open, and `_answer_hits` takes a stream's commands as long as each is

    a READ(10) or READ(16) in its turn, with no other bit set than what every initiator sets for a read,
    of whole sectors on the disk, as many as the initiator announced, in one Data-In PDU,
    whose bytes `hit` or `hit_blocks` of the disk has at hand.

`_answer_writes` does so where each is

    a WRITE(10) in its turn with no other bit set, on a unit that may be written and need not be stable,
    whose data is all in the command's own PDU,
    and which `write_now` of the disk takes without waiting: whole pages into the page cache.

Both stop before the first that is anything else, which then goes the long way (`tasks`). All ways answer the same.

Why it looks as it does. A read takes about 2.5 µs here, so each step counts: one `Struct` takes a header
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
from bootlink_blockstore.scsi.device import LogicalUnit, Nexus
from bootlink_blockstore.sequence import MASK, Host
from bootlink_wire.iscsi_codes import FINAL, NO_TAG, READ, STATUS, WRITE, Opcode
from bootlink_wire.iscsi_pdu import BHS
from bootlink_wire.scsi_cdb import SECTOR, Op

# Of a SCSI command: all before the task tag, tag, expected length, CmdSN, the CDB's first two bytes, LBA, length.
_COMMAND: Final = Struct(">16sIII4xHIxH7x")
_RANGE_16: Final = Struct(">QI")  # LBA and length of a 16-byte CDB, from its byte 2
_RANGE_16_AT: Final = 34
# Of a Data-In with the status, or a SCSI response: opcode to length, both tags, StatSN, ExpCmdSN, MaxCmdSN.
_ANSWER: Final = Struct(">Q8xQIII12x")
_DATA_IN: Final = Opcode.DATA_IN << 56 | (FINAL | STATUS) << 48  # | length
_RESPONSE: Final = Opcode.SCSI_RESPONSE << 56 | FINAL << 48
_TTT: Final = int(NO_TAG)
# The operation code, and the byte after it, which has DPO, FUA and protection bits: all 0.
_READ_10: Final = Op.READ_10 << 8
_READ_16: Final = Op.READ_16 << 8
_WRITE_10: Final = Op.WRITE_10 << 8
# No additional header, logical unit 0, and any task attribute but ACA; for a read, no data segment.
_PLAIN: Final = frozenset(bytes((Opcode.SCSI_COMMAND, FINAL | READ | attribute)) + bytes(14) for attribute in range(4))
_PLAIN_WRITE: Final = frozenset(
    bytes((Opcode.SCSI_COMMAND, FINAL | WRITE | attribute)) + bytes(3) for attribute in range(4)
)
_LENGTH_AT: Final = 5  # of a header: three bytes, the length of its data segment
OPCODE_AT: Final = 32
READS: Final = frozenset((int(Op.READ_10), int(Op.READ_16)))
WRITE_OP: Final = int(Op.WRITE_10)


class Path(NamedTuple):
    """What logical unit 0 offers while the paths are open, and who asks."""

    hit: Callable[[int, int], Buffer | None]
    hit_blocks: Callable[[int, int], Buffers | None]
    write_now: Callable[[int, Buffer], bool]
    size: int
    unit: LogicalUnit
    nexus: Nexus


class Hits(Conversation):
    """A session's cached reads and small writes."""

    def __init__(self, host: Host, on_error: Callable[[str], None]) -> None:
        super().__init__(host, on_error)
        self._path: Path | None = None

    def _answer_hits(self, path: Path, data: bytes, start: int, room: int) -> tuple[int, int]:
        """Answer the hits at the front of data[start:], until `room` bytes are put out.

        Returns where the first command begins that is not answered, and the bytes put out.
        """
        hit, hit_blocks, _, size, _, nexus = path
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
            out.append(pack(_DATA_IN | length, itt << 32 | _TTT, statsn, expected, highest))
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

    def _answer_writes(self, path: Path, data: bytes, start: int) -> int:
        """Do and answer the writes at the front of data[start:] that need no waiting. Returns where the next begins."""
        _, _, write_now, size, unit, nexus = path
        if not (self.parameters.immediate_data and unit.writable(nexus)):
            return start
        unpack, pack, tasks, append = _COMMAND.unpack_from, _ANSWER.pack, self.tasks, self.out.append
        expected, highest, statsn, most = self._exp_cmdsn, self._max_cmdsn, self._statsn, self.parameters.first_burst
        view, position, last, count = memoryview(data), start, len(data) - BHS, 0
        while position <= last:
            head, itt, length, cmdsn, op, lba, sectors = unpack(data, position)
            begin, offset = position + BHS, lba * SECTOR
            end = begin + length
            if (
                op != _WRITE_10
                or cmdsn != expected
                or head[:_LENGTH_AT] not in _PLAIN_WRITE
                or int.from_bytes(head[_LENGTH_AT:], "big") != length << 64  # and logical unit 0
                or length != sectors * SECTOR
                or not 0 < length <= most
                or offset + length > size
                or itt in tasks
                or end > len(data)
                or not write_now(offset, view[begin:end])
            ):
                break
            expected = expected + 1 & MASK
            highest = highest + 1 & MASK
            append(pack(_RESPONSE, itt << 32, statsn, expected, highest))
            statsn = statsn + 1 & MASK
            position = end
            count += 1
        if count:
            nexus.writes += count
            nexus.bytes_written += position - start - count * BHS
            nexus.last_io = self.now
            self._exp_cmdsn, self._max_cmdsn, self._statsn = expected, highest, statsn
        return position
