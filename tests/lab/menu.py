"""A client with a boot menu."""

from __future__ import annotations

from pathlib import Path

from bootlink_events import Menu, MenuEntry
from lab.blockstore import MAC, Plans, make_image, plan

NAMES = ("base", "data", "other")


def with_menu(folder: Path) -> Plans:
    """A plan with a disk to boot, a data disk, and a menu of two entries: the disk itself, and another."""
    base, data, other = (make_image(folder / f"{name}.img", 1 << 20, seed=n) for n, name in enumerate(NAMES))
    whole = plan(base, data)
    entries = [MenuEntry(name=path.stem, title=path.stem, disks=plan(path).disks) for path in (base, other)]
    return Plans({MAC: whole.model_copy(update={"menu": Menu(entries=tuple(entries), default="base", seconds=10)})})
