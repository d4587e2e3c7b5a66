"""Registries that end themselves with SIGKILL at the n-th step of publishing what was committed.

Steps are: the events were read from the outbox; plans are to be compiled; an event is to be published; JetStream has
acknowledged it; published ones are to be forgotten; they are forgotten.
"""

from __future__ import annotations

import sys

from bootlink_registry import outbox, plans
from bootlink_runtime import Bus
from rigs.dying_registry import WORKING, Steps, serve

KINDS = 8  # of places to die at


def step_of(kind: int, events: int) -> int:
    """The step at which a registry dies that finds so many events: one of KINDS places, from the first to the last."""
    published = 2 + 2 * events
    return (1, 2, 3, 4, 2 + events, published, published + 1, published + 2)[kind]


def prepare(die_at: int) -> None:
    """Have this process die at that step."""
    WORKING.set(True)  # for all tasks of this process
    steps = Steps(die_at)
    steps.after(outbox, "oldest_events")
    steps.before(plans, "compile_all")
    steps.before(Bus, "publish")
    steps.after(Bus, "publish")
    steps.before(outbox, "forget_events")
    steps.after(outbox, "forget_events")


if __name__ == "__main__":
    serve(prepare)
    sys.exit(0)
