"""A boot's steps beside those of other boots: the client's boot before it, and the median of its peers.

Each line is one step: how long it took, and by how much that is more (+) or less (-) than in the others. What the
others did not have stays empty. A step that took clearly longer than in all of them is marked, and so is the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.text import Text

SLOWER_LEAST: Final = 0.5  # seconds more than the others from which on a step is marked: what a person notices
SLOWER_SHARE: Final = 0.25  # and this share more: a long step varies by more than half a second
_STEP = 32
_CELL = 12

_WORDS: Final = {
    "address": "firmware has its address",
    "loader": "boot loader sent",
    "ipxe_address": "loader has its address",
    "script": "script served",
    "login": "firmware has its disk",
    "first_read": "firmware's first read",
    "system": "system has its disk",
    "idle": "system has read what it needed",
    "hello": "system says hello",
    "whole": "first packet to system's disk",
}


def beside(steps: Sequence[Mapping[str, Any]], *, last: bool, peers: int, version: str) -> list[Text]:
    """Lines of at most 72 columns; none where there is nothing to compare with."""
    if not steps or not (last or peers):
        return []
    heads = ["this boot"] + (["last boot"] if last else []) + ([_of(peers)] if peers else [])
    note = f"peers: {_counted(peers)} from {version}" if peers else "no other PC booted this version"
    lines = [Text(f"{'step':<{_STEP}}" + "".join(head.rjust(_CELL) for head in heads), style="bold")]
    for step in steps:
        cells = [f"{step['took']:.3f} s"]
        if last:
            cells.append(_difference(step["took"], step["last"]))
        if peers:
            cells.append(_difference(step["took"], step["peers"]))
        words = _WORDS.get(step["step"], step["step"])
        slower = _slower(step)
        line = Text(f"{words[:_STEP]:<{_STEP}}" + "".join(cell.rjust(_CELL) for cell in cells))
        if slower:
            line.append("  <")
            line.stylize("yellow")
        elif step["step"] == "whole":
            line.stylize("bold")
        lines.append(line)
    lines.append(Text(note, style="bright_black"))
    return lines


def _of(peers: int) -> str:
    return f"{peers} peer{'s' if peers > 1 else ''}"


def _counted(peers: int) -> str:
    return "the latest boot of another PC" if peers == 1 else f"the median of {peers} other PCs' latest boots"


def _difference(took: float, other: float | None) -> str:
    return "" if other is None else f"{took - other:+.3f} s"


def _slower(step: Mapping[str, Any]) -> bool:
    """Whether this step took clearly longer than in all that it can be compared with."""
    known = [other for other in (step["last"], step["peers"]) if other is not None]
    took = step["took"]
    return bool(known) and all(took - other > max(SLOWER_LEAST, SLOWER_SHARE * other) for other in known)
