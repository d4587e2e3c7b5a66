"""The disks that a client has of its own beside the one that it boots, as one cell of a roster file. Pure.

    1=games 2=scratch:3/keep 3=win11:test 4=none

Each is its LUN and what is linked: an image, with a channel (`production` unless another is named) or a pinned version
after a colon, and `/keep` where the client's writes survive its restarts; or `none`, where this client is to have no
such disk, whatever its group or everybody else has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from bootlink_events import Start
from bootlink_registry.catalogue import DEFAULT_CHANNEL, Link
from bootlink_registry.links import LUN_LIMIT
from bootlink_registry.names import check_name

NO_DISK: Final = Start(mode="none")
_NONE: Final = "none"
_KEEP: Final = "/keep"
_VERSION: Final = re.compile(r"[1-9][0-9]{0,8}")
_DISK: Final = re.compile(r"([0-9]{1,3})=([^\s:=/]+)(?::([^\s:=/]+))?(/keep)?")


def read(mac: str, text: str) -> tuple[Link, ...]:
    """The links that a cell names, by LUN. ValueError says what is wrong with it."""
    found: dict[int, Link] = {}
    for word in text.split():
        link = _link(mac, word)
        if link.lun in found:
            raise ValueError(f"LUN {link.lun} is there twice")
        found[link.lun] = link
    return tuple(found[lun] for lun in sorted(found))


def write(links: Iterable[Link]) -> str:
    """A cell that `read` reads as these links, but for their own layers, of which a file says nothing."""
    return " ".join(_written(link) for link in sorted(links, key=lambda link: link.lun))


def _link(mac: str, word: str) -> Link:
    parts = _DISK.fullmatch(word)
    if parts is None:
        raise ValueError(f"{word!r} is no disk: write 1=games, 2=games:test, 3=scratch:4/keep or 4=none")
    lun, image, where = int(parts[1]), parts[2], parts[3]
    if not 1 <= lun <= LUN_LIMIT:
        raise ValueError(f"LUN {lun} is not from 1 to {LUN_LIMIT}; what is booted is in the column image")
    if image == _NONE and where is None and parts[4] is None:
        return Link("client", mac, "", None, None, lun=lun, start=NO_DISK)
    pinned = int(where) if where is not None and _VERSION.fullmatch(where) else None
    channel = None if pinned is not None else check_name(where or DEFAULT_CHANNEL)
    return Link("client", mac, check_name(image), channel, pinned, "keep" if parts[4] else "discard", lun=lun)


def _written(link: Link) -> str:
    if not link.image:
        return f"{link.lun}={_NONE}"
    # An image may be called none; with its channel it is told from no disk.
    where = link.version or (link.channel if link.channel != DEFAULT_CHANNEL or link.image == _NONE else None)
    return f"{link.lun}={link.image}{f':{where}' if where else ''}{_KEEP if link.policy == 'keep' else ''}"
