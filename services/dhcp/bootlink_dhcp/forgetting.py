"""Whom to forget first where clients are remembered and there are too many: those that belong here last of all.

MAC addresses can be made up by anybody, as many as one likes. What is remembered of a made-up client is worth nothing,
what is remembered of a PC of the registry is worth a boot; so age alone must not decide. Pure.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

Belongs = Callable[[str], bool]
"""Whether the client of this MAC address is one of the registry's."""


def nobody(_: str) -> bool:
    """Where it is not known who belongs here."""
    return False


def forgotten(held: OrderedDict[str, Any], belongs: Belongs) -> str:
    """The client to forget: unused for longest of those that do not belong here, or of all if all belong here.

    `held`: by MAC address, least recently used first; not empty. Its order changes: whoever is spared moves to the
    end, so that each is met once in a round, however many are made up.
    """
    for _ in range(len(held)):
        client = next(iter(held))
        if not belongs(client):
            return client
        held.move_to_end(client)
    return next(iter(held))
