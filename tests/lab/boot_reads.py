"""What one boot of the demo PC reads of its disk, for those who play it back: `load()`.

The file (tests/golden/boot-reads.csv, made by `python -m guest.record`) is text: `#` lines that say what it is and how
large the disk was, then one line per READ in the order they came:

    milliseconds since the first,offset in bytes,length in bytes,firmware or os

`firmware` is iPXE, which reads for SeaBIOS, GRUB and the kernel's loading; `os` is open-iscsi. Offsets and lengths are
multiples of 512 and lie within the disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, Self

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "boot-reads.csv"

MIB: Final = 1 << 20
_HEAD: Final = """\
# What one boot of the demo PC reads of its disk, from power on to the login prompt; see lab/boot_reads.py.
# Recorded by `cd tests && python -m guest.record` (as root).
# disk,{size}
"""


class BootRead(NamedTuple):
    milliseconds: int  # since the boot's first read
    offset: int
    length: int
    initiator: str


@dataclass(frozen=True, slots=True)
class BootReads:
    """`size` is the disk's, in bytes."""

    size: int
    reads: tuple[BootRead, ...]

    @property
    def bytes_read(self) -> int:
        return sum(read.length for read in self.reads)

    def blocks(self, block: int) -> set[int]:
        """The numbers of the blocks of this size that the boot touches: its working set."""
        return {
            number
            for read in self.reads
            for number in range(read.offset // block, (read.offset + read.length - 1) // block + 1)
        }

    def described(self) -> str:
        seconds, touched = self.reads[-1].milliseconds / 1000, len(self.blocks(32768)) * 32768
        return (
            f"{len(self.reads)} reads of {self.bytes_read / MIB:.1f} MiB in {seconds:.1f} s, "
            f"which touch {touched / MIB:.1f} MiB of a disk of {self.size / MIB:.0f} MiB"
        )

    def dump(self) -> str:
        return _HEAD.format(size=self.size) + "".join(",".join(map(str, read)) + "\n" for read in self.reads)

    @classmethod
    def parse(cls, text: str) -> Self:
        size, reads = 0, []
        for line in text.splitlines():
            fields = line.split(",")
            if fields[0] == "# disk":
                size = int(fields[1])
            elif not line.startswith("#"):
                reads.append(BootRead(int(fields[0]), int(fields[1]), int(fields[2]), fields[3]))
        return cls(size, tuple(reads))


@cache
def load() -> BootReads:
    """The recorded boot."""
    return BootReads.parse(GOLDEN.read_text())
