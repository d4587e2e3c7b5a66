"""Work on disk image files: hash, convert, fetch, flatten, merge, compact and compare. Each in a process of its own.

Why a process. Image bytes are many, so the registry's event loop never reads any. And files come from outside: a parser
that goes wrong on one, ours or qemu-img's, must not take the registry with it, nor reach beyond what it was given.

How it works. `run` starts `python -m bootlink_registry.imaging`, writes the request to it as one line of JSON, and
reads lines: progress now and then, and at the end the result or the problem (`process`). The child gives up what it
does not need before it looks at a file: the network, memory beyond a limit, privileges to be gained (`confinement`).
When the caller is cancelled the child's process group is killed; when the registry dies the kernel kills the child.

What appears under `target` is whole, flushed, and under its name by a rename; a child that was killed leaves at most
a draft beside it, which `run` removes, or the next run for the same target after a kill of the registry itself.

Which layers a disk has comes from the registry: each is opened by the format, size and time that were recorded.
No name in a file is followed.
"""

from bootlink_registry.imaging.process import run
from bootlink_registry.imaging.requests import (
    Compact,
    Compare,
    Convert,
    Fetch,
    Flatten,
    Hash,
    LayerRef,
    Merge,
    Request,
    TargetFormat,
)
from bootlink_registry.imaging.results import Compacted, Compared, Fetched, Hashed, Written

__all__ = [
    "Compact",
    "Compacted",
    "Compare",
    "Compared",
    "Convert",
    "Fetch",
    "Fetched",
    "Flatten",
    "Hash",
    "Hashed",
    "LayerRef",
    "Merge",
    "Request",
    "TargetFormat",
    "Written",
    "run",
]
