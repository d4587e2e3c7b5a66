"""What a disk says of itself: INQUIRY data, vital product data pages, capacity (SPC-4, SBC-3).

Each function gives the bytes of one answer, whole; cutting them to the allocation length is the caller's.

What Windows' disk stack needs (FIELD section 3) holds here and in the tests: page 00 is strictly ascending, B1 is
exactly 0x3C bytes long, B0 at least 36, B2 at least 8, and pages 80 and 83 are the client's own and stable, or PCs that
boot one image would look like one disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from struct import pack
from typing import Final

from bootlink_wire.scsi_cdb import SECTOR, lun_field

VENDOR: Final = b"BOOTLINK"  # 8 bytes
PRODUCT: Final = b"Network disk    "  # 16 bytes
REVISION: Final = b"1   "  # 4 bytes

DISK: Final = 0x00  # peripheral qualifier 0, device type 0: a disk that is there
NO_DEVICE: Final = 0x7F  # qualifier 3, type 1Fh: nothing can be at this logical unit

# Version descriptors (SPC-4, table 142): SAM-5, iSCSI, SPC-4, SBC-3, no version claimed.
_VERSIONS: Final = (0x00A0, 0x0960, 0x0460, 0x04C0)

BINARY: Final = 1  # code sets
ASCII: Final = 2
T10_VENDOR: Final = 1  # designator types, of a logical unit
NAA: Final = 3

OPTIMAL_TRANSFER: Final = 512  # sectors: 256 KiB, one burst of most initiators
PHYSICAL_EXPONENT: Final = 3  # 8 sectors make one 4 KiB page of the write-back
ROTATION_SSD: Final = 1
ZERO_COUNT_REFUSED: Final = 1  # WSNZ: a WRITE SAME of "all that follows" would be without limit
GRANULARITY_VALID: Final = 1 << 31  # UGAVALID: the unmap alignment that is given counts


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
    def designators(self) -> list[tuple[int, int, bytes]]:
        """The names of page 83: code set, designator type, designator."""
        return [(BINARY, NAA, self.naa), (ASCII, T10_VENDOR, VENDOR + self.serial)]

    @property
    def naa(self) -> bytes:
        """A locally assigned NAA identifier (type 3): 8 bytes. A registered one (5, 6) would take a company id."""
        digest = hashlib.sha256(b"bootlink disk " + self.serial).digest()
        return bytes((0x30 | digest[0] & 0x0F,)) + digest[1:8]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one command may do, in sectors; 0 where the command is not there (page B0)."""

    transfer: int
    prefetch: int = 0
    compare_and_write: int = 0
    unmap: int = 0
    unmap_descriptors: int = 0
    write_same: int = 0


def inquiry(peripheral: int = DISK, *, copies: bool = False) -> bytes:
    """Standard INQUIRY data (SPC-4, section 6.6.2). `copies`: 3PC, it knows EXTENDED COPY."""
    versions = b"".join(v.to_bytes(2, "big") for v in _VERSIONS)
    data = bytearray(96)
    data[0] = peripheral
    data[2] = 0x06  # SPC-4
    data[3] = 0x12  # HISUP, response data format 2
    data[4] = len(data) - 5
    data[5] = 0x08 if copies else 0  # 3PC
    data[7] = 0x02  # CMDQUE
    data[8:36] = VENDOR + PRODUCT + REVISION
    data[58 : 58 + len(versions)] = versions
    return bytes(data)


def _page(code: int, body: bytes, peripheral: int = DISK) -> bytes:
    return bytes((peripheral, code)) + len(body).to_bytes(2, "big") + body


def _unit_serial(identity: Identity, _limits: Limits) -> bytes:
    return identity.serial


def _identification(identity: Identity, _limits: Limits) -> bytes:
    """Page 83: NAA (binary) and T10 vendor id (ASCII) of the logical unit (SPC-4, section 7.8.6)."""
    return b"".join(bytes((code, kind, 0, len(name))) + name for code, kind, name in identity.designators)


def _extended(_identity: Identity, _limits: Limits) -> bytes:
    """Page 86: SIMPSUP, and V_SUP for the write cache that there is."""
    body = bytearray(0x3C)
    body[1] = 0x01
    body[2] = 0x01
    return bytes(body)


def _block_limits(_identity: Identity, limits: Limits) -> bytes:
    """Page B0 (SBC-4, section 6.6.4). UNMAP gives whole 4 KiB pages back, and they begin at block 0.

    Of atomic writes it tells one page, and no more: Linux offers what stands here to databases, which then take for
    granted that no crash leaves a half of one.
    """
    page = 1 << PHYSICAL_EXPONENT
    return pack(
        ">BBHIIIIIIIQIII8x",
        ZERO_COUNT_REFUSED,
        limits.compare_and_write,
        page,
        limits.transfer,
        OPTIMAL_TRANSFER,
        limits.prefetch,
        limits.unmap,
        limits.unmap_descriptors,
        page,
        GRANULARITY_VALID,
        limits.write_same,
        page,  # atomic writes: at most,
        page,  # beginning at multiples of,
        page,  # and in multiples of; no boundaries
    )


def _characteristics(_identity: Identity, _limits: Limits) -> bytes:
    """Page B1: no rotation, no form factor."""
    return ROTATION_SSD.to_bytes(2, "big") + bytes(0x3A)


def _provisioning(_identity: Identity, _limits: Limits) -> bytes:
    """Page B2 (SBC-4, section 6.6.8): thin; UNMAP and WRITE SAME with UNMAP give space back, and the blocks read as
    zeros afterwards. There is no anchoring: a block that is given back is not kept in reserve."""
    return bytes((0, 0x80 | 0x40 | 0x20 | 0x04, 0x02, 0))  # LBPU, LBPWS, LBPWS10, LBPRZ=1; thin


_PAGES: Final = {
    0x80: _unit_serial,
    0x83: _identification,
    0x86: _extended,
    0xB0: _block_limits,
    0xB1: _characteristics,
    0xB2: _provisioning,
}


def vital_product_data(page: int, identity: Identity, limits: Limits) -> bytes | None:
    """One VPD page, None if there is no such page."""
    if page == 0:
        return _page(0, bytes((0, *sorted(_PAGES))))
    build = _PAGES.get(page)
    return None if build is None else _page(page, build(identity, limits))


def read_capacity_10(sectors: int) -> bytes:
    """Last address and block size; a disk too large for 32 bits answers FFFFFFFF, and the initiator asks again."""
    return pack(">II", min(sectors - 1, 0xFFFFFFFF), SECTOR)


def read_capacity_16(sectors: int) -> bytes:
    """Last address, block size, that eight blocks make a physical one, and that blocks can be unmapped and read as
    zeros then: LBPME, LBPRZ (SBC-3, section 5.16)."""
    return pack(">QIBBH16x", sectors - 1, SECTOR, 0, PHYSICAL_EXPONENT, 0xC000)


def report_luns(luns: list[int]) -> bytes:
    """The list of logical units (SPC-4, section 6.33)."""
    return pack(">I4x", 8 * len(luns)) + b"".join(lun_field(lun).to_bytes(8, "big") for lun in luns)
