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
from typing import Final

from bootlink_blockstore.conversation import Conversation
from bootlink_blockstore.scsi.device import Disk, Nexus
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


class Hits(Conversation):
    """A session's cached reads."""

    def __init__(self, host: Host, on_error: Callable[[str], None]) -> None:
        super().__init__(host, on_error)
        self._hot_disk: Disk | None = None  # logical unit 0's, while the path is open
        self._hot_nexus: Nexus | None = None

    def _answer_hits(self, data: bytes, start: int, room: int) -> tuple[int, int]:
        """Answer the hits at the front of data[start:], until `room` bytes are put out.

        Returns where the first command begins that is not answered, and the bytes put out.
        """
        disk, nexus, tasks = self._hot_disk, self._hot_nexus, self.tasks
        assert disk is not None
        assert nexus is not None
        expected, highest, statsn = self._exp_cmdsn, self._max_cmdsn, self._statsn
        unpack, hit, pack, append = _COMMAND.unpack_from, disk.hit, _ANSWER.pack, self.out.append
        limit, size = min(self.parameters.receive_limit, self.parameters.max_burst), disk.size
        position, last = start, len(data) - BHS
        put = 0
        while position <= last:
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
                or not 0 < length <= limit
                or offset + length > size
                or itt in tasks
            ):
                break
            view = hit(offset, length)
            views = disk.hit_blocks(offset, length) if view is None else None
            if view is None and views is None:
                break
            expected = expected + 1 & MASK
            highest = highest + 1 & MASK
            append(pack(_ANSWER_HEAD | length, itt << 32 | _TTT, statsn, expected, highest))
            if view is not None:
                append(view)
            elif views is not None:
                self.out += views
            statsn = statsn + 1 & MASK
            position += BHS
            put += length
            if put >= room:
                break
        if put:
            nexus.reads += (position - start) // BHS
            nexus.bytes_read += put
            nexus.first_read = nexus.first_read or self.now
            nexus.last_io = self.now
            self._exp_cmdsn, self._max_cmdsn, self._statsn = expected, highest, statsn
        return position, put
