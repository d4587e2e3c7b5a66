"""What the two protocols have in common: who fetches, how many may at once, and what is told at the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bootlink_tftp.answers import Answer
from bootlink_wire.tftp_transfer import Outcome

Peer = tuple[str, int]
OnEnd = Callable[[Answer, Peer, Outcome, float], None]
"""Called at the end of each transfer with the seconds it took."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """How many transfers (over HTTP: connections) there are at once, in all and with one IP address."""

    total: int
    per_client: int
