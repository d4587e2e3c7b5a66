"""The rigs that `make soak` runs. To add one, add a row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rigs import (
    commits,
    crash_states,
    dhcp_packets,
    disk_formats,
    drops,
    exports,
    image_reads,
    job_kills,
    kills,
    pdus,
    power_log,
    rebuild,
    registry_kills,
    relay_kills,
    storm,
    tftp_packets,
)
from rigs.figures import Figures


@dataclass(frozen=True)
class Rig:
    """One row. `count` is the full count; a run may scale it."""

    name: str
    shows: str
    count: int
    run: Callable[[int, int, Path], Figures]


RIGS: Final = (
    Rig("kills", "kill -9 of the block store in the middle of verified writes and trims", 200, kills.run),
    Rig(
        "crash-states",
        "power cuts after each system call of random workloads, recovered and read whole",
        10_000,
        crash_states.run,
    ),
    Rig("power-log", "power cuts replayed from the log of a disk below (QEMU's blklogwrites)", 50, power_log.run),
    Rig("commits", "kill -9 of the block store while it makes a layer of what a client wrote", 50, commits.run),
    Rig("export-kills", "an export killed before each of its system calls, and begun again", 2_000, exports.killed),
    Rig("export-cuts", "power cuts after each system call of an export", 5_000, exports.cut),
    Rig("drops", "power cuts while a super client's write-back is thrown away", 2_000, drops.run),
    Rig("storm", "a room restarts at once while a client reads on, all in one process", 200, storm.run),
    Rig("pdus", "iSCSI conversations broken in every way, in memory and over TCP", 100_000, pdus.run),
    Rig(
        "dhcp-packets", "rounds of a boot LAN whose PCs' DHCP packets are broken in every way", 8_000, dhcp_packets.run
    ),
    Rig("tftp-packets", "TFTP clients that ask and answer wrongly, beside one that boots", 20_000, tftp_packets.run),
    Rig(
        "disk-formats",
        "hostile VHD, VHDX and raw files, each refused or served from within the file, in 256 MB",
        8_000,
        disk_formats.run,
    ),
    Rig(
        "image-reads",
        "rounds of reads by 12 clients at once of stacks that share layers, from disks that are slow, warm or broken",
        2_000,
        image_reads.run,
    ),
    Rig(
        "registry-kills",
        "kill -9 of the registry at each step of a commit; each death leaves the old state or the new one",
        200,
        registry_kills.run,
    ),
    Rig("seal-kills", "kill -9 of the registry at each step of the sealing of an own layer", 100, job_kills.seals),
    Rig("compaction-kills", "kill -9 of the registry at each step of a compaction", 100, job_kills.compactions),
    Rig(
        "relay-kills",
        "kill -9 of the registry between the commit of a change and the publishing of its event",
        100,
        relay_kills.run,
    ),
    Rig("rebuild", "the map of what a client wrote, rebuilt after a restart", 65_536, rebuild.run),
)
