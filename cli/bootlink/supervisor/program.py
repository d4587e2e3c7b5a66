"""What a child is."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

SERVICE_GRACE: Final = 10.0  # seconds; a service drains its bus (2 s), its HTTP answers (2 s) and its write-backs
ENGINE_GRACE: Final = 30.0  # seconds; PostgreSQL writes a checkpoint when it stops


@dataclass(frozen=True, slots=True)
class Ailment:
    """What is wrong with a child that runs: it is told to people, and where a new start heals it, it gets one."""

    problem: str
    remedy: str
    restart: bool


@dataclass(frozen=True)
class Program:
    """A child process: how it is run, how it shows that it is ready, and how it is told to stop.

    A service says `ready` in its log. An engine is asked (`answers`, which may block and runs in a thread), and its
    `prepare` runs once, before its first start.
    """

    name: str
    command: Callable[[], Sequence[str]]
    environment: Mapping[str, str]
    tier: int
    """Higher tiers stop first. Engines come up tier by tier; services come up together, for none needs another."""
    prepare: Callable[[], None] | None = None
    answers: Callable[[], bool] | None = None
    ails: Callable[[], Ailment | None] | None = None
    """Asked now and then while it runs; may block and runs in a thread."""
    stop_signal: signal.Signals = signal.SIGTERM
    grace: float = SERVICE_GRACE
    keeps: Mapping[str, str] = field(default_factory=dict)
    """Addresses whose port stays over restarts: what the log calls it -> the variable that sets its port. A port 0
    becomes the port that was bound first, so that whoever found it there finds it there again."""
    shown_level: str = "info"
