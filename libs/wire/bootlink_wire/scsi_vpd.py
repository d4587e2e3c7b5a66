"""What a disk says of itself: INQUIRY data, vital product data pages, mode pages, capacity (SPC-4, SBC-3).

Each function gives the bytes of one answer, whole; cutting them to the allocation length is the caller's.

What Windows' disk stack needs (FIELD section 3) holds here and in the tests: page 00 is strictly ascending, B1 is
exactly 0x3C bytes long, B0 at least 36, B2 at least 8, and pages 80 and 83 are the client's own and stable, or PCs that
boot one image would look like one disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from struct import Struct, pack
from typing import Final

from bootlink_wire.scsi_cdb import SECTOR, lun_field

VENDOR: Final = b"BOOTLINK"  # 8 bytes
PRODUCT: Final = b"Network disk    "  # 16 bytes
REVISION: Final = b"1   "  # 4 bytes

DISK: Final = 0x00  # peripheral qualifier 0, device type 0: a disk that is there
NO_DEVICE: Final = 0x7F  # qualifier 3, type 1Fh: nothing can be at this logical unit

# Version descriptors (SPC-4, table 142): SAM-5, iSCSI, SPC-4, SBC-3, no version claimed.
_VERSIONS: Final = (0x00A0, 0x0960, 0x0460, 0x04C0)

OPTIMAL_TRANSFER: Final = 512  # sectors: 256 KiB, one burst of most initiators
PHYSICAL_EXPONENT: Final = 3  # 8 sectors make one 4 KiB page of the write-back
ROTATION_SSD: Final = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a disk is: of which client, and which of its disks. Not of which image: that may change under it."""

    mac: str
    lun: int

    @property
    def serial(self) -> bytes:
        """The unit serial number, ASCII."""
        return f"{self.mac.replace(':', '')}-{self.lun}".encode()

    @property
    def naa(self) -> bytes:
        """A locally assigned NAA identifier (type 3): 8 bytes. A registered one (5, 6) would take a company id."""
        digest = hashlib.sha256(b"bootlink disk " + self.serial).digest()
        return bytes((0x30 | digest[0] & 0x0F,)) + digest[1:8]


def inquiry(peripheral: int = DISK) -> bytes:
    """Standard INQUIRY data (SPC-4, section 6.6.2)."""
    versions = b"".join(v.to_bytes(2, "big") for v in _VERSIONS)
    data = bytearray(96)
    data[0] = peripheral
    data[2] = 0x06  # SPC-4
    data[3] = 0x12  # HISUP, response data format 2
    data[4] = len(data) - 5
    data[7] = 0x02  # CMDQUE
    data[8:36] = VENDOR + PRODUCT + REVISION
    data[58 : 58 + len(versions)] = versions
    return bytes(data)


def _page(code: int, body: bytes, peripheral: int = DISK) -> bytes:
    return bytes((peripheral, code)) + len(body).to_bytes(2, "big") + body


def _unit_serial(identity: Identity, _transfer: int) -> bytes:
    return identity.serial


def _identification(identity: Identity, _transfer: int) -> bytes:
    """Page 83: NAA (binary) and T10 vendor id (ASCII) of the logical unit (SPC-4, section 7.8.6)."""
    naa, t10 = identity.naa, VENDOR + identity.serial
    return bytes((0x01, 0x03, 0, len(naa))) + naa + bytes((0x02, 0x01, 0, len(t10))) + t10


def _extended(_identity: Identity, _transfer: int) -> bytes:
    """Page 86: SIMPSUP, and V_SUP for the write cache that there is."""
    body = bytearray(0x3C)
    body[1] = 0x01
    body[2] = 0x01
    return bytes(body)


def _block_limits(_identity: Identity, transfer: int) -> bytes:
    """Page B0 (SBC-3, section 6.5.3). Unmap and write-same limits are 0 as long as neither is supported."""
    return pack(">BBHIII44x", 0, 0, 1 << PHYSICAL_EXPONENT, transfer, OPTIMAL_TRANSFER, 0)


def _characteristics(_identity: Identity, _transfer: int) -> bytes:
    """Page B1: no rotation, no form factor."""
    return ROTATION_SSD.to_bytes(2, "big") + bytes(0x3A)


def _provisioning(_identity: Identity, _transfer: int) -> bytes:
    """Page B2: neither UNMAP nor WRITE SAME, so no provisioning type is claimed."""
    return bytes(4)


_PAGES: Final = {
    0x80: _unit_serial,
    0x83: _identification,
    0x86: _extended,
    0xB0: _block_limits,
    0xB1: _characteristics,
    0xB2: _provisioning,
}


def vital_product_data(page: int, identity: Identity, transfer: int) -> bytes | None:
    """One VPD page, None if there is no such page. `transfer` is the most sectors one command may move."""
    if page == 0:
        return _page(0, bytes((0, *sorted(_PAGES))))
    build = _PAGES.get(page)
    return None if build is None else _page(page, build(identity, transfer))


# Mode pages (SPC-4, section 7.5; SBC-3, section 6.4), as current values. The client may change none of them.
_CACHING: Final = bytes((0x08, 0x12, 0x04)) + bytes(17)  # WCE=1: writes are volatile until flushed, and flushes count
_CONTROL: Final = bytes((0x0A, 0x0A, 0x00, 0x10)) + bytes(8)  # unrestricted reordering, fixed-format sense, no SWP
_EXCEPTIONS: Final = bytes((0x1C, 0x0A, 0x08)) + bytes(9)  # DEXCPT: no failure predictions are made
MODE_PAGES: Final = {0x08: _CACHING, 0x0A: _CONTROL, 0x1C: _EXCEPTIONS}
ALL_PAGES: Final = 0x3F
DEVICE_SPECIFIC: Final = 0x10  # DPOFUA: FUA is honoured; not write protected

CHANGEABLE: Final = 1  # page control (SPC-4, table 372)
SAVED: Final = 3


def mode_pages(page: int, control: int) -> bytes | None:
    """The wanted mode pages, in ascending order; None if there is no such page."""
    if page == ALL_PAGES:
        wanted = [MODE_PAGES[code] for code in sorted(MODE_PAGES)]
    elif page in MODE_PAGES:
        wanted = [MODE_PAGES[page]]
    else:
        return None
    if control == CHANGEABLE:
        wanted = [data[:2] + bytes(len(data) - 2) for data in wanted]
    return b"".join(wanted)


def mode_sense_6(pages: bytes, sectors: int, *, descriptor: bool) -> bytes:
    """The parameter list of MODE SENSE(6): header, one block descriptor where wanted, pages."""
    block = _short_descriptor(sectors) if descriptor else b""
    return bytes((3 + len(block) + len(pages), 0, DEVICE_SPECIFIC, len(block))) + block + pages


def mode_sense_10(pages: bytes, sectors: int, *, descriptor: bool, long_lba: bool) -> bytes:
    """The same for MODE SENSE(10), with 8-byte addresses in the descriptor where the initiator accepts them."""
    block = b""
    if descriptor:
        block = _LONG_DESCRIPTOR.pack(sectors, SECTOR) if long_lba else _short_descriptor(sectors)
    flags = 1 if descriptor and long_lba else 0
    return pack(">HBBBxH", 6 + len(block) + len(pages), 0, DEVICE_SPECIFIC, flags, len(block)) + block + pages


_LONG_DESCRIPTOR: Final = Struct(">Q4xI")


def _short_descriptor(sectors: int) -> bytes:
    return pack(">II", min(sectors, 0xFFFFFFFF), SECTOR)


def read_capacity_10(sectors: int) -> bytes:
    """Last address and block size; a disk too large for 32 bits answers FFFFFFFF, and the initiator asks again."""
    return pack(">II", min(sectors - 1, 0xFFFFFFFF), SECTOR)


def read_capacity_16(sectors: int) -> bytes:
    """Last address, block size, and that eight blocks make a physical one (SBC-3, section 5.16)."""
    return pack(">QIBB18x", sectors - 1, SECTOR, 0, PHYSICAL_EXPONENT)


def report_luns(luns: list[int]) -> bytes:
    """The list of logical units (SPC-4, section 6.33)."""
    return pack(">I4x", 8 * len(luns)) + b"".join(lun_field(lun).to_bytes(8, "big") for lun in luns)
