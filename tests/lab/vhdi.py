"""libvhdi, the judge of differencing chains, which QEMU does not read: run in Debian's own Python.

Its version 20210425 has faults that a test must go around:

- Of a VHD's sector bitmap it takes each bit together with those before it in the byte, so that after the first sector
  that is here it takes all up to the next 4 KiB for being here too. (Of a VHDX's bitmap it takes each bit alone, as it
  should.) So of VHD chains it is asked about changes that begin at any sector, and end at a page: `ending_at_pages`.
- Of a differencing VHDX it reads bitmaps where there are none, from the start of the file. So each layer of a chain
  that it judges has a block that is there in part.
- It takes blocks that are zeros for the parent's, so none has such.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

PYTHON = "/usr/bin/python3"  # for which Debian packages it

_SCRIPT = """
import sys
import pyvhdi

files = []
for path in sys.argv[1:]:
    files.append(pyvhdi.file())
    files[-1].open(path)
for child, parent in zip(files, files[1:]):
    child.set_parent(parent)
top = files[0]
while data := top.read_buffer(1 << 16):
    sys.stdout.buffer.write(data)
"""


def read_chain(*paths: Path) -> bytes:
    """The disk of these files, top first, as libvhdi reads it. Fails, with its words, if it does not."""
    done = subprocess.run([PYTHON, "-c", _SCRIPT, *map(str, paths)], capture_output=True, timeout=60)
    assert b"No module named" not in done.stderr, "pyvhdi is missing: apt install python3-libvhdi"
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def ending_at_pages(changes: Iterable[tuple[int, bytes]], size: int) -> list[tuple[int, bytes]]:
    """Changes with those left out that end within a page, other than at the disk's end."""
    return [(at, data) for at, data in changes if (at + len(data)) % 4096 == 0 or at + len(data) == size]
