"""The data of EXTENDED COPY(LID1) and RECEIVE COPY RESULTS (SPC-4, sections 6.4 and 6.18).

A parameter list names copy targets (here: identification descriptors, E4h) and segments (here: from block device to
block device, 02h), each by its place in the list of targets.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct, pack
from typing import Final, NamedTuple

from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_sense import CheckCondition, Sense

EXTENDED_COPY: Final = 0x00  # service action: with a one-byte list identifier (LID1)
COPY_STATUS: Final = 0x00  # service actions of RECEIVE COPY RESULTS
OPERATING_PARAMETERS: Final = 0x03

TARGETS_LIMIT: Final = 2  # a source and a destination
SEGMENTS_LIMIT: Final = 8  # each of at most 65,535 blocks: 256 MiB per command
IDENTIFICATION: Final = 0xE4
BLOCK_TO_BLOCK: Final = 0x02
DISK: Final = 0x00  # peripheral device type

_HEADER: Final = Struct(">BBH4xII")
_TARGET: Final = Struct(">BBHBBxB20s4x")
_SEGMENT: Final = Struct(">BBHHH2xHQQ")
LIST_LIMIT: Final = TARGETS_LIMIT * _TARGET.size + SEGMENTS_LIMIT * _SEGMENT.size
PARAMETERS_LIMIT: Final = _HEADER.size + 2 * LIST_LIMIT  # bytes taken in, so that a list too long is told as such
_NO_IDENTIFIER: Final = 3  # LIST ID USAGE: none is given, and no result is kept


class Segment(NamedTuple):
    """What to copy, in blocks. `source` and `destination` are places in the list of targets."""

    source: int
    destination: int
    sectors: int
    source_lba: int
    destination_lba: int


class Job(NamedTuple):
    """An EXTENDED COPY. Targets are designators as page 83 has them: code set, type, and bytes."""

    identifier: int | None
    targets: list[tuple[int, int, bytes]]
    segments: list[Segment]


def parse(data: bytes) -> Job:
    """The parameter list of an EXTENDED COPY. CheckCondition if it is none that we can follow."""
    if len(data) < _HEADER.size:
        raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
    identifier, flags, target_bytes, segment_bytes, inline = _HEADER.unpack_from(data)
    if target_bytes + segment_bytes > LIST_LIMIT or len(data) < _HEADER.size + target_bytes + segment_bytes:
        raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
    if inline:
        raise CheckCondition(sense.INVALID_PARAMETER.at(12))
    at = _HEADER.size
    places = _places(data, at, target_bytes, _TARGET.size, IDENTIFICATION, sense.UNKNOWN_TARGET_TYPE)
    targets = [_target(data, place) for place in places]
    if len(targets) > TARGETS_LIMIT:
        raise CheckCondition(sense.TOO_MANY_TARGETS)
    at += target_bytes
    places = _places(data, at, segment_bytes, _SEGMENT.size, BLOCK_TO_BLOCK, sense.UNKNOWN_SEGMENT_TYPE)
    segments = [_segment(data, place) for place in places]
    if len(segments) > SEGMENTS_LIMIT:
        raise CheckCondition(sense.TOO_MANY_SEGMENTS)
    return Job(None if flags >> 3 & 3 == _NO_IDENTIFIER else identifier, targets, segments)


def _places(data: bytes, at: int, length: int, size: int, kind: int, unknown: Sense) -> Iterator[int]:
    """Where each descriptor of a list begins. CheckCondition, once reached, for another kind or one cut short."""
    for place in range(at, at + length, size):
        if data[place] != kind:
            raise CheckCondition(unknown)
        if place + size > at + length:
            raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
        yield place


def _target(data: bytes, at: int) -> tuple[int, int, bytes]:
    """A target. LU ID TYPE and NUL, in bits 7 to 5 of its flags, are obsolete since SPC-4 and ignored."""
    _, flags, _, code_set, kind, size, designator = _TARGET.unpack_from(data, at)
    if flags & 0x1F != DISK or size > len(designator):
        raise CheckCondition(sense.INVALID_PARAMETER.at(at + 1))
    return code_set & 0x0F, kind & 0x3F, designator[:size]


def _segment(data: bytes, at: int) -> Segment:
    _, _, length, source, destination, sectors, source_lba, destination_lba = _SEGMENT.unpack_from(data, at)
    if length != _SEGMENT.size - 4:
        raise CheckCondition(sense.INVALID_PARAMETER.at(at + 2))
    return Segment(source, destination, sectors, source_lba, destination_lba)


def copy_status(*, failed: bool, segments: int, size: int) -> bytes:
    """How a copy ended: segments done, and KiB written (SPC-4, table 232)."""
    return pack(">IBHBI", 8, 2 if failed else 1, segments, 1, size >> 10)


def operating_parameters() -> bytes:
    """What an EXTENDED COPY may ask (SPC-4, table 236)."""
    body = pack(
        ">B3xHHIIII4x2xHBBBB3xB2s",
        0x01,  # SNLID: it need give no list identifier
        TARGETS_LIMIT,
        SEGMENTS_LIMIT,
        LIST_LIMIT,
        0xFFFF * SECTOR,  # bytes of one segment
        0,  # no inline data
        0,  # none held either
        1,  # copies at once that are sure to find room
        1,
        SECTOR.bit_length() - 1,  # granularity of segments, as a power of two
        0,
        0,
        2,  # descriptors that are known:
        bytes((BLOCK_TO_BLOCK, IDENTIFICATION)),
    )
    return len(body).to_bytes(4, "big") + body
