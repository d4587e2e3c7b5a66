"""What the child gives up before it looks at a file, and what a program that it starts has to make do with.

- It dies with the registry (PR_SET_PDEATHSIG): a registry that is started anew begins the work anew, and two at one
  draft would spoil it.
- It gains no privileges (PR_SET_NO_NEW_PRIVS), makes no core file, and is nice to others: booting PCs come first.
- Its memory, its time of computing and the largest file that it may write have limits.
- It has no network (a network namespace of its own, with nothing in it), unless it is there to download.
- It changes files in the target's folder alone, if there is a target (`landlock`).

qemu-img, which parses what we do not, gets less: of files it may read the source and the system's libraries, and write
the one that was made for it. Where
the kernel has no such namespaces or no Landlock, the rest holds: they are the second line, as no name in a file is
followed.

Source: prctl(2), unshare(2), setrlimit(2).
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from bootlink_registry.imaging import landlock

MEMORY: Final = 3 << 30
"""Bytes of address space for the child. Opened layers hold at most 132 MiB each, so this is for chains of 20 of the
worst; an ordinary chain takes a tenth of it."""

TOOL_MEMORY: Final = 1 << 30
"""Bytes of address space for qemu-img. It takes 300 MB for a sound image, whatever its size."""

NICENESS: Final = 10

_NULL: Final = Path("/dev/null")
_SYSTEM: Final = ("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/proc/self", "/sys/devices/system/cpu")
"""What programs and their libraries are made of."""

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x1000_0000
_CLONE_NEWNET: Final = 0x4000_0000

_libc = ctypes.CDLL(None, use_errno=True)


def confine(parent: int, target: Path | None, *, network: bool, seconds: int) -> None:
    """Give up what the work does not need. `parent` is the process that must live, `target` what will be written, if
    anything will; `seconds` of computing are given."""
    die_with(parent)
    _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if not network:
        leave_network()
    folders = () if target is None else ((target.parent, landlock.WRITE),)
    landlock.restrict(landlock.WRITE, (*folders, (_NULL, landlock.WRITE)))
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    limit(resource.RLIMIT_AS, MEMORY)
    limit(resource.RLIMIT_CPU, seconds)


def confine_tool(parent: int, tool: Path, source: int, target: Path | None, *, size: int, seconds: int) -> None:
    """The same for a program that is about to be started; `source` is the descriptor of what it may read, `target` the
    file that it writes, which is there, and `size` the bytes that this may have."""
    die_with(parent)
    # The file alone, and not its folder: the other layers of the image lie in that.
    written = () if target is None else ((target, landlock.WRITE | landlock.READ),)
    system = [(Path(path), landlock.READ) for path in (*_SYSTEM, tool.parent.parent if tool.parents[1:] else tool)]
    own = ((Path(f"/proc/self/fd/{source}"), landlock.READ_FILE), (_NULL, landlock.WRITE | landlock.READ))
    landlock.restrict(landlock.WRITE | landlock.READ, (*written, *system, *own))
    limit(resource.RLIMIT_AS, TOOL_MEMORY)
    limit(resource.RLIMIT_CPU, seconds)
    limit(resource.RLIMIT_FSIZE, size)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end at once if it has ended already."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def leave_network() -> bool:
    """Move to an empty network namespace; False where that is not allowed. Only while there is one thread."""
    # As root alone; else with a user namespace, in which no one is mapped: files are checked by the ids outside it.
    return any(_libc.unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def limit(what: int, most: int) -> None:
    """Set a limit that cannot be raised again; a lower one that is there already stays."""
    _, hard = resource.getrlimit(what)
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    with suppress(ValueError):
        resource.setrlimit(what, (most, most))
