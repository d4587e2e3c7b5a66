"""Hostile files of every disk format: mutated bytes, and bombs, in a process with little memory.

The one invariant: whatever the bytes of a file, it is refused with DiskError, or every run of its map lies within it;
nothing else is raised, no read asks for more than MAX_READ, and an input takes under SECONDS of processor time (a bomb:
SORTS) in a process that may have MEMORY in all.

Files to mutate are made by qemu-img (VHD, VHDX, a VHDX with a log left behind) and by us (the differencing ones). Most
mutations hit the structures, most values are edges, and most inputs have their checksums made right again, or nothing
behind a checksum would ever be tried. A bomb is a file that is right in itself, and as large as its format lets it be.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bootlink_disks import DiskError, Format, Kind, create_vhd_differencing, create_vhd_dynamic, open_layer, vhd
from bootlink_disks.layer import Pread, Structure
from bootlink_disks.open import FORMATS, recognise
from bootlink_disks.vhdx_header import HEADERS_AT, TABLE_SIZE, TABLES_AT, sealed
from lab.disks import MIB, changes_of, qemu_img, reseal_footer, reseal_header, sparse_disk
from lab.vhdx import DATA_WRITE, FULL, LOG, PART, Vhdx, locator, log_entry
from rigs.figures import Figures, Violation

SECONDS: Final = 1.0
SORTS: Final = 4
"""How often a million numbers in no order could be sorted while a bomb is opened: its blocks must be, to be proved
apart. That is under a second where nothing else runs; in seconds it would measure what else does."""

MEMORY: Final = 256 << 20
MAX_READ: Final = 16 << 20  # bytes that a parser may ask for at once: the largest log
SIZE: Final = 3 * MIB + 512

EDGES: Final = (0, 1, 2, 3, 6, 7, 511, 512, 4095, 4096, 65535, MIB - 1, MIB, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
WIDE_EDGES: Final = (*EDGES, 2**32, 2**40, 2**44 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - MIB, 2**64 - 1)


@dataclass
class Subject:
    """A sound file, and where its structures are: (offset, length), the more telling the smaller."""

    path: Path
    structures: tuple[tuple[int, int], ...]
    seal: Callable[[Mutant], None]


@dataclass
class Mutant:
    """A file with some bytes changed, without writing them."""

    fd: int
    size: int
    patches: list[tuple[int, bytes]] = field(default_factory=list)

    def pread(self, offset: int, length: int) -> bytes:
        if not (0 <= offset <= 1 << 62 and 0 <= length <= MAX_READ):
            raise Violation(f"a read of {length} bytes at {offset}")
        data = bytearray(os.pread(self.fd, max(0, min(length, self.size - offset)), offset))
        data += bytes(max(0, min(length, self.size - offset) - len(data)))  # grown
        for at, patch in self.patches:
            low, high = max(at, offset), min(at + len(patch), offset + len(data))
            if low < high:
                data[low - offset : high - offset] = patch[low - at : high - at]
        return bytes(data)

    def put(self, offset: int, data: bytes) -> None:
        self.patches.append((offset, data))


def _seal_vhd(file: Mutant) -> None:
    for at in (0, file.size - 512):
        if at >= 0 and file.pread(at, 8) == vhd.FOOTER_COOKIE:
            data = bytearray(file.pread(at, 512).ljust(512, b"\0"))
            reseal_footer(data, 0)
            file.put(at, bytes(data))
    if file.pread(512, 8) == vhd.HEADER_COOKIE:
        data = bytearray(file.pread(512, 1024).ljust(1024, b"\0"))
        reseal_header(data, 0)
        file.put(512, bytes(data))


def _seal_vhdx(file: Mutant) -> None:
    for at in HEADERS_AT:
        file.put(at, sealed(file.pread(at, 4096).ljust(4096, b"\0")))
    for at in TABLES_AT:
        file.put(at, sealed(file.pread(at, TABLE_SIZE).ljust(TABLE_SIZE, b"\0")))
    for at in range(MIB, MIB + 16 * 4096, 4096):
        sign, _, length = struct.unpack("<4sII", file.pread(at, 12).ljust(12, b"\0"))
        if sign == b"loge" and 4096 <= length <= MIB:
            file.put(at, sealed(file.pread(at, length)))


VHD_STRUCTURES: Final = ((0, 512), (512, 64), (1536, 64), (-512, 512), (2048, 1024))
VHDX_STRUCTURES: Final = (
    *((at, 80) for at in HEADERS_AT),
    *((at, 80) for at in TABLES_AT),
    (MIB, 160),
    (MIB, 64 << 10),
    (2 * MIB, 256),
    (2 * MIB + (64 << 10), 256),
    (3 * MIB, 64),
    (3 * MIB + 4096 * 8, 8),
)


def subjects(folder: Path) -> list[Subject]:
    """The corpus, made anew."""
    raw = sparse_disk(folder / "a.img", SIZE, islands=4)
    made = {}
    for name, format_, options in (
        ("dynamic.vhd", "vpc", "force_size=on"),
        ("fixed.vhd", "vpc", "force_size=on,subformat=fixed"),
        ("dynamic.vhdx", "vhdx", "block_size=1M"),
        ("fixed.vhdx", "vhdx", "subformat=fixed,block_size=1M"),
    ):
        made[name] = folder / name
        qemu_img("convert", "-f", "raw", "-O", format_, "-o", options, raw, made[name])
    rng = random.Random(0)
    ours = create_vhd_dynamic(folder / "ours.vhd", raw, block_size=512 << 10)
    child = create_vhd_differencing(folder / "child.vhd", ours, changes_of(rng, SIZE, 40), block_size=512 << 10)
    log = log_entry(8, [(3 * MIB, bytes(4096)), (4 * MIB, rng.randbytes(4096))], [(4 * MIB + 8192, 8192)])
    log += log_entry(9, [(3 * MIB, struct.pack("<Q", 4 * MIB | FULL).ljust(4096, b"\0"))], last=6 * MIB)
    parts = {
        "log.vhdx": Vhdx(SIZE, {0: (FULL, b"a" * MIB)}, log=log, log_guid=LOG),
        "child.vhdx": Vhdx(
            SIZE,
            {0: (PART, b"a" * MIB), 1: (2, b""), 2: (FULL, b"b" * MIB)},
            parent=locator(DATA_WRITE),
            bits={0: rng.getrandbits(2048)},
        ),
    }
    for name, file in parts.items():
        made[name] = folder / name
        made[name].write_bytes(bytes(file))
    vhds = [ours.path, child.path, made["dynamic.vhd"], made["fixed.vhd"]]
    vhdxs = [path for name, path in made.items() if name.endswith(".vhdx")]
    return [Subject(path, VHD_STRUCTURES, _seal_vhd) for path in vhds] + [
        Subject(path, VHDX_STRUCTURES, _seal_vhdx) for path in vhdxs
    ]


def mutated(subject: Subject, fd: int, size: int, rng: random.Random) -> Mutant:
    """The file with one to four changes."""
    file = Mutant(fd, size)
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        start, length = rng.choice(subject.structures)
        at = (start % file.size if file.size else 0) + rng.randrange(length)
        match rng.randrange(10):
            case 0:
                file.size = rng.choice((rng.randrange(file.size + 1), file.size + rng.choice((1, 512, MIB))))
            case 1:
                file.put(rng.randrange(file.size + 1), rng.randbytes(rng.choice((1, 8, 512))))
            case 2 | 3:
                file.put(at, rng.randbytes(1))
            case 4:
                other, _ = rng.choice(subject.structures)
                file.put(at & ~7, file.pread(other % max(file.size, 1), rng.choice((4, 8, 16, 32, 4096))))
            case 5 | 6:
                value = rng.choice((*EDGES, rng.getrandbits(32), rng.randrange(64)))
                file.put(at & ~3, value.to_bytes(4, rng.choice(("little", "big"))))
            case _:
                value = rng.choice((*WIDE_EDGES, rng.randrange(16) << 20 | rng.randrange(8), rng.getrandbits(64)))
                file.put(at & ~7, value.to_bytes(8, rng.choice(("little", "big"))))
    if rng.random() < 0.85:
        subject.seal(file)
    return file


def judge(pread: Pread, size: int) -> str:
    """What became of an input, in a word. Violation if it broke the invariant; what else is raised breaks it too."""
    words = []
    for parse in (lambda pread, size: FORMATS[recognise(pread, size, "a.bin")](pread, size), *FORMATS.values()):
        try:
            structure = parse(pread, size)
        except DiskError as error:
            if not str(error).isprintable() or len(str(error)) > 1000:
                raise Violation(f"a refusal that is no line: {str(error)!r}") from error
            words.append("refused")
        else:
            prove_safe(structure, size)
            words.append("served")
    return words[0]


def prove_safe(structure: Structure, file_size: int) -> None:
    """Violation unless every run that is looked at lies in the file and they add up."""
    disk = structure.map
    if disk.size <= 0 or disk.size % 512:
        raise Violation(f"a disk of {disk.size} bytes")
    for offset in {0, disk.size // 2 // 512 * 512, disk.size - 512}:
        length = min(256 << 10, disk.size - offset)
        runs = disk.locate(offset, length)
        if sum(run.length for run in runs) != length or min(run.length for run in runs) <= 0:
            raise Violation("runs that do not add up")
        for kind, at, size in runs:
            if kind is Kind.DATA and not 0 <= at <= file_size - size:
                raise Violation(f"a run of {size} bytes at {at}, in a file of {file_size}")


def bombs(folder: Path) -> dict[str, Path]:
    """Files that are right, and as large as their formats and our limits let them be. Sparse, so they cost nothing."""
    rng = random.Random(1)
    entries = 1 << 20
    order = list(range(entries))
    rng.shuffle(order)
    made = {}
    for name, kind, blocks in (("dynamic", vhd.DYNAMIC, entries), ("differencing", vhd.DIFFERENCING, 131_072)):
        size = entries * 4096
        first = (1536 + entries * 4) // 512
        table = [first + 9 * place for place in order[:blocks]] + [vhd.NO_BLOCK] * (entries - blocks)
        footer = bytes(vhd.Footer(kind, size, DATA_WRITE, 512))
        header = bytes(vhd.DynamicHeader(1536, entries, 4096))
        made[f"{name}.vhd"] = path = folder / f"bomb-{name}.vhd"
        with path.open("wb") as file:
            file.write(footer + header + struct.pack(f">{entries}I", *table))
            if kind == vhd.DIFFERENCING:
                for place in table[:blocks]:
                    file.seek(place * 512)
                    file.write(b"\x55")  # every other sector, so that each bitmap is kept
            file.seek((first + 9 * entries) * 512)
            file.write(footer)
    for name, state in (("dynamic", FULL), ("differencing", PART)):
        blocks = entries if state == FULL else 131_072
        base = bytearray(bytes(Vhdx(MIB, parent=None if state == FULL else locator(DATA_WRITE))))
        struct.pack_into("<Q", base, 2 * MIB + (64 << 10) + 8, entries * MIB)
        bat_length = 9 * MIB
        for at in TABLES_AT:
            table_ = bytearray(base[at : at + TABLE_SIZE])
            struct.pack_into("<I", table_, 16 + 24, bat_length)
            base[at : at + TABLE_SIZE] = sealed(bytes(table_))
        bat = []
        for block, place in enumerate(order):
            bat.append((16 + 256 + place) << 20 | state if block < blocks else 0)
            if block % 4096 == 4095:
                bat.append((16 + block // 4096) << 20 | FULL if state == PART else 0)
        made[f"{name}.vhdx"] = path = folder / f"bomb-{name}.vhdx"
        with path.open("wb") as file:
            file.write(base[: 3 * MIB] + struct.pack(f"<{len(bat)}Q", *bat))
            if state == PART:
                file.seek(16 * MIB)
                for _ in range(32):
                    file.write(b"\x55" * MIB)
            file.truncate((16 + 256 + entries) * MIB)
    zeros = [(4 * MIB + 8192 * index, 4096) for index in range(16_384)]
    made["log.vhdx"] = folder / "bomb-log.vhdx"
    made["log.vhdx"].write_bytes(bytes(Vhdx(4 * MIB, {0: (FULL, b"")}, log=log_entry(1, (), zeros), log_guid=LOG)))
    return made


def run(count: int, seed: int, folder: Path) -> Figures:
    """Mutate `count` times, and set off each bomb, in processes with little memory. Violation names the input."""
    total: Counter[str] = Counter()
    slowest = peak = 0.0
    subjects(folder)
    bombs(folder)
    for part in ("mutants", "bombs"):
        command = [sys.executable, "-m", "rigs.disk_formats", part, str(count), str(seed), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": _tests()})
        if done.returncode:
            raise Violation(f"seed {seed}: {done.stderr.strip()[-2000:]}")
        told = json.loads(done.stdout)
        total.update(told["total"])
        slowest, peak = max(slowest, told["slowest"]), max(peak, told["peak"])
    return {
        "hostile files": sum(total.values()),
        "refused": total["refused"],
        "served, within the file": total["served"],
        "the slowest, in milliseconds": round(slowest * 1000),
        "most memory, in MiB": round(peak / MIB),
    }


def _tests() -> str:
    return str(Path(__file__).resolve().parent.parent)


def _in_little_memory(part: str, count: int, seed: int, folder: Path) -> None:
    """What the process does: judges inputs, and writes what became of them as JSON."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    total: Counter[str] = Counter()
    slowest = 0.0
    if part == "bombs":
        paths = sorted(folder.glob("bomb-*"))
        yardstick = min(_sorting() for _ in range(3))
        for path in paths:
            taken = min(_taken(path) for _ in range(2))  # what is more than the least is other processes' doing
            slowest = max(slowest, taken)
            if taken > SORTS * yardstick:
                raise Violation(f"{path.name} took {taken:.2f} s, where sorting a million took {yardstick:.2f} s")
        total["served"] = len(paths)
    else:
        corpus = _corpus(folder)
        for number in range(count):
            rng = random.Random(f"{seed}/{number}")
            subject, fd, size = rng.choice(corpus)
            file = mutated(subject, fd, size, rng)
            started = time.process_time()
            try:
                word = judge(file.pread, file.size)
            except Exception as error:
                raise Violation(f"input {number} of seed {seed}, of {subject.path.name}: {error!r}") from error
            taken = time.process_time() - started
            slowest = max(slowest, taken)
            if taken > SECONDS:
                raise Violation(f"input {number} of seed {seed}, of {subject.path.name}, took {taken:.2f} s")
            total[word] += 1
    json.dump({"total": total, "slowest": slowest, "peak": _peak()}, sys.stdout)


def _peak() -> int:
    """The most bytes that were resident in this process. `ru_maxrss` would count its parent's before the exec, too."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def _sorting() -> float:
    """Seconds of processor time that sorting a million numbers takes here and now."""
    numbers = array("I", range(1 << 20))
    random.Random(0).shuffle(numbers)
    started = time.process_time()
    sorted(numbers)
    return time.process_time() - started


def _taken(path: Path) -> float:
    """Seconds of processor time that it takes to open a bomb, which is right and must be served."""
    name = path.suffix[1:]
    format_: Format = "vhdx" if name == "vhdx" else "vhd-dynamic"
    if "differencing" in path.name:
        format_ = "vhdx-differencing" if name == "vhdx" else "vhd-differencing"
    started = time.process_time()
    try:
        with open_layer(path, format_) as layer:
            for offset in range(0, layer.size - 4096, layer.size // 64):
                layer.locate(offset, 4096)
    except DiskError as error:
        raise Violation(f"{path.name} is right, and was refused: {error}") from error
    return time.process_time() - started


def _corpus(folder: Path) -> list[tuple[Subject, int, int]]:
    found = []
    for path in sorted([*folder.glob("*.vhd"), *folder.glob("*.vhdx")]):
        if path.name.startswith("bomb-"):
            continue
        is_vhd = path.suffix == ".vhd"
        subject = Subject(path, VHD_STRUCTURES if is_vhd else VHDX_STRUCTURES, _seal_vhd if is_vhd else _seal_vhdx)
        found.append((subject, os.open(path, os.O_RDONLY), path.stat().st_size))
    return found


if __name__ == "__main__":
    _in_little_memory(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
