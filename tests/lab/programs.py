"""Tiny programs for the supervisor: a service that says what ours say, and does what a test wants of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from bootlink.supervisor.program import Program

SERVICE = """
import json, os, signal, sys, time
def say(event, **fields):
    print(json.dumps({"event": event, "level": "info", **fields}), file=sys.stderr, flush=True)
def note(text):
    with open(os.environ["NOTES"], "a") as notes:
        notes.write(text + "\\n")
"""


def service(name: str, body: str, *, notes: str = os.devnull, tier: int = 2, **more: Any) -> Program:
    """A program that runs `body`; it may say(event, **fields) and note(text), which appends to the file `notes`."""
    command = [sys.executable, "-c", SERVICE + body]
    environment = {**os.environ, "NOTES": notes, **more.pop("environment", {})}
    return Program(name=name, command=lambda: command, environment=environment, tier=tier, **more)


RUNS = """
def bye(*_):
    note("stop " + os.environ.get("NAME", ""))
    sys.exit(0)
signal.signal(signal.SIGTERM, bye)
note("start " + os.environ.get("NAME", ""))
say("listening", what="api", address="127.0.0.1:%d" % int(os.environ.get("PORT", 0) or 4711))
say("ready")
while True:
    time.sleep(60)
"""


def alive(pid: int) -> bool:
    """Whether this process still runs; a zombie that nobody has waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()

    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
