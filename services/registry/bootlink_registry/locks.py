"""PostgreSQL's advisory locks that the registry takes: all of them, so that no two mean the same number.

They are shared by all registries on one database. There are two kinds, whose numbers never meet in PostgreSQL: whole
ones of 64 bits, which stand for one thing; and pairs of 32 bits, of which the first says of what kind a thing is, and
the second is a hash of its name. Two things of one kind may share a hash: they wait for one another, and no more.

Whoever changes a number should know that registries of both sides of an update may run at once.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Final

PAIR: Final = "SELECT pg_advisory_xact_lock($1, hashtext($2))"
"""Takes the lock of one thing, of the kind and name given, until the transaction ends."""


@unique
class Whole(IntEnum):
    """Locks of one thing: "boot" in ASCII, then a number of our own."""

    MIGRATION = 0x626F_6F74_0001
    DELIVERY = 0x626F_6F74_0002  # held by the registry that delivers plans and events
    ENROLMENT = 0x626F_6F74_0003  # one enrolment at a time
    JOBS = 0x626F_6F74_0004  # held by the registry that runs jobs
    TOKENS = 0x626F_6F74_0010  # one addition at a time, or two could pass the limit together
    WEBHOOKS = 0x626F_6F74_0011  # the same


@unique
class Kind(IntEnum):
    """The first half of a lock; what the second is a hash of."""

    BOOTS = 0x626F  # a client's MAC address: what is written down of its boots
    LINK = 0x6270  # the link's scope and key
    IMAGE = 0x6271  # the image's name
    CLIENT = 0x6272  # the client's MAC address: what is decided about it
