"""Mode pages: what a disk lets its initiators ask and change (SPC-4, sections 7.5 and 6.11; SBC-3, section 6.4).

`Modes` is the state: all that MODE SELECT can change. The pages, in ascending order:

    page   it says                                                         can be changed
    08     write cache: on (WCE=1), nothing is read ahead for a segment    WCE
    0A     commands may be reordered, protection and reporting             D_SENSE, SWP
    1C     no failure is predicted (DEXCPT=1)                              nothing

Each changed bit means what it says: WCE=0 that a write is stable when it is answered, D_SENSE=1 that sense comes in
descriptors, SWP=1 that writes are refused. Nothing is saved. `select` gives new state or says what is wrong with a
parameter list, whole: a list with one wrong page changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from struct import Struct, pack
from typing import Final

from bootlink_wire import scsi_sense as sense
from bootlink_wire.scsi_cdb import SECTOR
from bootlink_wire.scsi_sense import CheckCondition

CACHING: Final = 0x08
CONTROL: Final = 0x0A
EXCEPTIONS: Final = 0x1C
ALL_PAGES: Final = 0x3F

CURRENT: Final = 0  # page control (SPC-4, table 372)
CHANGEABLE: Final = 1
DEFAULT: Final = 2
SAVED: Final = 3

WCE: Final = 0x04  # page 08, byte 2
D_SENSE: Final = 0x04  # page 0A, byte 2
SWP: Final = 0x08  # page 0A, byte 4
REORDERING: Final = 0x10  # page 0A, byte 3: unrestricted
DEXCPT: Final = 0x08  # page 1C, byte 2

WRITE_PROTECTED: Final = 0x80  # device-specific parameter: WP
FUA_HONOURED: Final = 0x10  # device-specific parameter: DPOFUA
LONG_LBA: Final = 1  # header of MODE SENSE(10)
SUB_PAGES: Final = 0x40  # a page with a subpage code: there is none


@dataclass(frozen=True, slots=True)
class Modes:
    """What mode pages say, and the parts of it that can be changed."""

    write_cache: bool = True
    descriptor_sense: bool = False
    write_protected: bool = False

    def page(self, code: int) -> bytes:
        """One page. KeyError if there is no such page."""
        return _PAGES[code](self)

    def pages(self, code: int, control: int) -> bytes | None:
        """The wanted pages, in ascending order; None if there is no such page. `control`: CURRENT and the like."""
        codes = sorted(_PAGES) if code == ALL_PAGES else [code] if code in _PAGES else None
        if codes is None:
            return None
        if control == CHANGEABLE:
            return b"".join(_mask(code) for code in codes)
        state = Modes() if control == DEFAULT else self
        return b"".join(state.page(code) for code in codes)

    @property
    def device_specific(self) -> int:
        return FUA_HONOURED | (WRITE_PROTECTED if self.write_protected else 0)

    def sense_6(self, pages: bytes, sectors: int, *, descriptor: bool) -> bytes:
        """The parameter list of MODE SENSE(6): header, one block descriptor where wanted, pages."""
        block = _short_descriptor(sectors) if descriptor else b""
        return bytes((3 + len(block) + len(pages), 0, self.device_specific, len(block))) + block + pages

    def sense_10(self, pages: bytes, sectors: int, *, descriptor: bool, long_lba: bool) -> bytes:
        """The same for MODE SENSE(10), with 8-byte addresses in the descriptor where the initiator accepts them."""
        block = b""
        if descriptor:
            block = _LONG_DESCRIPTOR.pack(sectors, SECTOR) if long_lba else _short_descriptor(sectors)
        flags = LONG_LBA if descriptor and long_lba else 0
        size = 6 + len(block) + len(pages)
        return pack(">HBBBxH", size, 0, self.device_specific, flags, len(block)) + block + pages

    def select(self, data: bytes, sectors: int, *, long_header: bool) -> Modes:
        """The state after MODE SELECT with this parameter list. CheckCondition if anything in it is wrong."""
        header = 8 if long_header else 4
        if not data:
            return self
        if len(data) < header:
            raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
        size = int.from_bytes(data[6:8], "big") if long_header else data[3]
        long_lba = long_header and bool(data[4] & LONG_LBA)
        self._check_descriptor(data[header : header + size], header, size, sectors, long_lba=long_lba)
        modes, at = self, header + size
        while at < len(data):
            modes = modes._with_page(data, at)
            at += 2 + data[at + 1]
        return modes

    def _check_descriptor(self, block: bytes, at: int, size: int, sectors: int, *, long_lba: bool) -> None:
        """A block descriptor may say what is so already, or nothing."""
        if not size:
            return
        if len(block) < size:
            raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
        if size != (16 if long_lba else 8):
            raise CheckCondition(sense.INVALID_PARAMETER.at(at - 1))
        count, length = (_LONG_DESCRIPTOR if long_lba else _SHORT_DESCRIPTOR).unpack(block)
        most = 0xFFFFFFFF_FFFFFFFF if long_lba else 0xFFFFFFFF
        if count not in (0, most, min(sectors, most)):
            raise CheckCondition(sense.INVALID_PARAMETER.at(at))
        if length & 0xFFFFFF != SECTOR:
            raise CheckCondition(sense.INVALID_PARAMETER.at(at + size - 3))

    def _with_page(self, data: bytes, at: int) -> Modes:
        """The state with the page at `at` of the parameter list taken in."""
        code = data[at] & 0x3F
        if data[at] & SUB_PAGES or code not in _PAGES:
            raise CheckCondition(sense.INVALID_PARAMETER.at(at))
        current, mask = self.page(code), _mask(code)
        given = data[at : at + len(current)]
        for index in range(1, len(given)):
            may = 0 if index == 1 else mask[index]  # the length is never changeable, and so checked here as well
            if (given[index] ^ current[index]) & ~may & 0xFF:
                raise CheckCondition(sense.INVALID_PARAMETER.at(at + index))
        if len(given) < len(current):
            raise CheckCondition(sense.PARAMETER_LIST_LENGTH)
        if code == CACHING:
            return replace(self, write_cache=bool(given[2] & WCE))
        if code == CONTROL:
            return replace(self, descriptor_sense=bool(given[2] & D_SENSE), write_protected=bool(given[4] & SWP))
        return self


def _caching(modes: Modes) -> bytes:
    return bytes((CACHING, 0x12, WCE if modes.write_cache else 0)) + bytes(17)


def _control(modes: Modes) -> bytes:
    flags = D_SENSE if modes.descriptor_sense else 0
    return bytes((CONTROL, 0x0A, flags, REORDERING, SWP if modes.write_protected else 0)) + bytes(7)


def _exceptions(_modes: Modes) -> bytes:
    return bytes((EXCEPTIONS, 0x0A, DEXCPT)) + bytes(9)


_PAGES: Final = {CACHING: _caching, CONTROL: _control, EXCEPTIONS: _exceptions}


def _mask(code: int) -> bytes:
    """The page with every bit set that can be changed: those in which the two extremes differ."""
    one, other = _PAGES[code](Modes()), _PAGES[code](Modes(False, True, True))
    return one[:2] + bytes(a ^ b for a, b in zip(one[2:], other[2:], strict=True))


_LONG_DESCRIPTOR: Final = Struct(">Q4xI")
_SHORT_DESCRIPTOR: Final = Struct(">II")


def _short_descriptor(sectors: int) -> bytes:
    return _SHORT_DESCRIPTOR.pack(min(sectors, 0xFFFFFFFF), SECTOR)
