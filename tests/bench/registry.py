"""The registry with ten thousand clients: how soon a change is at the block store, and how soon the API answers."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.report import Goal, Section, percentile, table
from lab import fleet


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    clients: int = 10_000
    images: int = 200  # more than `rounds`, and than `singles` by ten
    rounds: int = 5
    singles: int = 40
    asked: int = 400  # times GET /clients
    listed: int = 5
    import_bytes: int = 512 << 20


FULL = Scale()
ALL_LIMIT, ONE_LIMIT, LIST_LIMIT, ASK_LIMIT = 5.0, 0.1, 1.0, 0.05  # seconds


def registry(folder: Path, scale: Scale = FULL) -> Section:
    with fleet.running(folder, clients=scale.clients, images=scale.images) as system:
        everybody = [_everybody(system, number + 1) for number in range(scale.rounds)]
        one = [_one(system, number) for number in range(scale.singles)]
        lists = {kind: [_list(system, *options) for _ in range(scale.listed)] for kind, options in LISTS.items()}
        quiet = _asked(system, scale.asked)
        beside, imported = _beside_import(system, scale.import_bytes)
    rows = [
        ("`link set` on the default: all plans at the block store", *_figures(everybody)),
        ("`link set` on one client: its plan at the block store", *_figures(one)),
        *((f"`client list` {kind}, the whole command", *_figures(times)) for kind, times in lists.items()),
        ("GET /clients, 100 of them, at rest", *_figures(quiet)),
        ("GET /clients, 100 of them, beside an import", *_figures(beside)),
    ]
    text = (
        f"{scale.clients:,} clients in 100 groups, {scale.images} images; nats-server and PostgreSQL sync each change "
        "to disk. The registry, the block store and two of tftp are processes of their own, which all take in each "
        "plan; the second tftp stands in for dhcp, which wants a network card. "
        f"The import copies and hashes {scale.import_bytes >> 20} MiB in {imported:.1f} s.\n\n"
    )
    slowest = max(statistics.median(times) for times in lists.values())
    return Section(
        "Registry",
        text + table(("", "times", "p50 ms", "p99 ms", "longest ms"), rows),
        (
            _goal(
                f"all of {scale.clients:,} plans at the block store within 5 s", statistics.median(everybody), ALL_LIMIT
            ),
            _goal("one plan at the block store within 100 ms", statistics.median(one), ONE_LIMIT),
            _goal(f"`client list` of {scale.clients:,} within 1 s", slowest, LIST_LIMIT),
            _goal("GET /clients beside an import: p99 below 50 ms", percentile(beside, 99), ASK_LIMIT),
        ),
    )


LISTS: dict[str, tuple[str, ...]] = {"as a table": (), "as JSON": ("--json",)}


def _everybody(system: fleet.Fleet, image: int) -> float:
    before = system.until_quiet()
    began = time.monotonic()
    system.call("PUT", "links", scope="default", image=fleet.image(image))
    system.until_oldest(before)
    return time.monotonic() - began


def _one(system: fleet.Fleet, number: int) -> float:
    if number == 0:
        system.until_quiet()
    time.sleep(0.3)  # an administrator's pace
    before = system.held()["newest"]
    began = time.monotonic()
    system.call("PUT", "links", scope="client", name=f"pc-{number * 7 + 1:05}", image=fleet.image(number + 10))
    system.until_newest(before)
    return time.monotonic() - began


def _list(system: fleet.Fleet, *options: str) -> float:
    environment = os.environ | {"BOOTLINK_API": system.api, "BOOTLINK_TOKEN": system.token}
    command = [str(Path(sys.executable).parent / "bootlink"), "client", "list", *options]
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    taken = time.monotonic() - began
    if f"pc-{system.clients:05}" not in done.stdout:
        raise RuntimeError("the list is not whole")
    return taken


def _asked(system: fleet.Fleet, times: int, going: Callable[[], bool] = lambda: True) -> list[float]:
    taken: list[float] = []
    while len(taken) < times and going():
        began = time.monotonic()
        system.call("GET", "clients")
        taken.append(time.monotonic() - began)
        time.sleep(0.005)
    return taken


def _beside_import(system: fleet.Fleet, size: int) -> tuple[list[float], float]:
    """GET /clients while an image is copied and hashed; and how long that took."""
    source = system.folder / "source.img"
    with source.open("wb") as out:
        for _ in range(size >> 20):
            out.write(os.urandom(1 << 20))
        out.seek(510)
        out.write(b"\x55\xaa")  # a boot signature, by which a raw disk is known
    began = time.monotonic()
    job = system.call("POST", "imports", name="imported", source=str(source))
    ended: list[float] = []

    def watch() -> None:
        with system.another() as other:
            while other.call("GET", f"jobs/{job['id']}")["state"] in ("queued", "running"):
                time.sleep(0.2)
        ended.append(time.monotonic() - began)

    watcher = threading.Thread(target=watch)
    watcher.start()
    taken = _asked(system, 100_000, lambda: not ended)
    watcher.join()
    state = system.call("GET", f"jobs/{job['id']}")
    if state["state"] != "done":
        raise RuntimeError(f"the import failed: {state}")
    return taken, ended[0]


def _figures(times: list[float]) -> tuple[str, ...]:
    figures = (statistics.median(times), percentile(times, 99), max(times))
    return (str(len(times)), *(f"{seconds * 1000:,.0f}" for seconds in figures))


def _goal(what: str, seen: float, limit: float) -> Goal:
    return Goal(what, seen <= limit, f"{seen * 1000:,.0f} ms")
