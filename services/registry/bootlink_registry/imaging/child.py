"""The child's side: one request on stdin; progress and the outcome on stdout, a line of JSON each."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any, Final

from bootlink_disks import DiskError
from bootlink_registry.imaging.compact import compact
from bootlink_registry.imaging.confinement import confine
from bootlink_registry.imaging.convert import convert
from bootlink_registry.imaging.disks import compare, flatten
from bootlink_registry.imaging.hashing import hash_file
from bootlink_registry.imaging.merge import merge
from bootlink_registry.imaging.requests import REQUEST, Compact, Compare, Convert, Fetch, Flatten, Hash, Merge
from bootlink_registry.imaging.results import Result
from bootlink_registry.imaging.work import Tell, problem_of
from bootlink_registry.problems import Problem, invalid

COMPUTING: Final = 24 * 3600
"""Seconds of processor time. A disk of 2 TiB takes about one and a half hours; what takes a day turns in circles."""

WORK: Final[dict[type[Any], Callable[[Any, Tell], Result]]] = {
    Hash: hash_file,
    Convert: convert,
    Flatten: flatten,
    Merge: merge,
    Compact: compact,
    Compare: compare,
}


def main() -> None:
    """Do what stdin asks."""
    parent = os.getppid()
    request = REQUEST.validate_json(sys.stdin.buffer.readline())
    work = WORK.get(type(request)) or _download()
    confine(parent, request.target, network=isinstance(request, Fetch), seconds=COMPUTING)
    try:
        if request.target is not None and not request.target.parent.is_dir():
            raise invalid(f"{request.target.parent}: there is no such folder", "make it, or choose another")
        result = work(request, lambda done, total: say({"progress": [done, total]}))
        outcome = {"result": result.model_dump(mode="json")}
    except (DiskError, OSError, MemoryError) as error:
        outcome = {"problem": _told(problem_of(error))}
    except Problem as problem:
        outcome = {"problem": _told(problem)}
    say(outcome)


def _download() -> Callable[[Any, Tell], Result]:
    """Its HTTP client takes a fifth of the time that a child needs to start, and only a download needs it."""
    from bootlink_registry.imaging.fetch import fetch

    return fetch


def _told(problem: Problem) -> dict[str, Any]:
    return {"status": problem.status, "detail": problem.detail, "remedy": problem.remedy}


def say(words: dict[str, Any]) -> None:
    """One line to the parent."""
    os.write(sys.stdout.fileno(), json.dumps(words).encode() + b"\n")
