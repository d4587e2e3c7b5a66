"""A boot storm: 64 clients replay the reads of one recorded boot at once, with nothing cached and with all of it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bench import servers
from bench.load import Sample, Work, measured
from bench.report import Goal, Section, table
from lab import boot_reads
from lab.blockstore import digest

CLIENTS = 64
DEPTH = 4  # reads that a client has outstanding: an operating system's, not firmware's single one
PATIENCE = 120.0
SLACK = 1.02  # of bytes read: the file's own metadata is among them


def boot_storm(folder: Path) -> Section:
    boot = boot_reads.load()
    trace = folder / "trace"
    trace.write_text("".join(f"{read.offset} {read.length}\n" for read in boot.reads))
    image = servers.make_disk(folder / "disk.raw", boot.size)
    before = digest(image)
    work = Work("trace", depth=DEPTH, region=boot.size, seconds=PATIENCE, warm=0, trace=trace)
    rows = []
    with servers.store(folder / "store", image, clients=CLIENTS) as ours:
        measured(ours.pid, ours.logins(1), Work(seconds=0.1))  # open the layer; its first blocks come with that
        _forget(image)
        for cached in ("cold", "warm"):
            read_before = _disk_bytes(ours.pid)
            sample = measured(ours.pid, ours.logins(CLIENTS), work)
            rows.append((cached, sample, _disk_bytes(ours.pid) - read_before, _resident(image)))
    if digest(image) != before:
        raise RuntimeError("the golden image was changed")
    _, _, from_disk, resident = rows[0]
    text = (
        f"One boot of the demo PC: {boot.described()}. {CLIENTS} clients replay it at once, each with {DEPTH} reads "
        f"outstanding and without its pauses: {CLIENTS * boot.bytes_read / 2**30:.1f} GiB in all.\n\n"
    )
    head = ["cache", "all done after s", "reads per s", "MB/s", "p50 ms", "p99 ms", "longest ms"]
    head += ["MiB read from disk", "MiB of the file in memory after"]
    return Section(
        "Boot storm",
        text + table(head, [_row(*row, boot.bytes_read) for row in rows]),
        (
            Goal(
                "boot storm: the layer's blocks are read from disk once",
                from_disk <= resident * SLACK,
                f"{from_disk / 2**20:.1f} MiB read, the kernel's read-ahead included, "
                f"and {resident / 2**20:.1f} MiB of the file in memory",
            ),
        ),
    )


def _row(cached: str, sample: Sample, from_disk: int, resident: int, bytes_each: int) -> tuple[object, ...]:
    return (
        cached,
        f"{sample.seconds:.2f}",
        f"{sample.rate:,.0f}",
        f"{CLIENTS * bytes_each / sample.seconds / 1e6:,.0f}",
        *(f"{value / 1000:.1f}" for value in (sample.p50, sample.p99, sample.longest)),
        f"{from_disk / 2**20:.1f}",
        f"{resident / 2**20:.1f}",
    )


def _forget(path: Path) -> None:
    """Out of the page cache."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _resident(path: Path) -> int:
    """Bytes of the file in the page cache: what was read of it at least once."""
    return int(subprocess.check_output(["fincore", "--bytes", "--noheadings", "--output", "RES", path]))


def _disk_bytes(pid: int) -> int:
    """Bytes that this process made the kernel fetch from block devices."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["read_bytes"])
