"""A registry with thousands of clients, as it runs in production: real processes on engines that sync to disk.

nats-server, PostgreSQL, `python -m bootlink_registry`, the block store, and tftp twice; the second stands in for dhcp,
which wants a network card. All of them follow the plans. Clients and images come by SQL: they are what is measured
with, not what is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from bootlink_events import BootId
from lab.nats import NatsServer
from lab.postgres import PostgresServer
from lab.process import Process
from lab.registry import raw_disk

PATIENCE = 120.0  # seconds
GLANCE = 0.005  # seconds between looks at the block store for one plan
LOOK = 0.05  # for all plans; it counts them at each look


@dataclass(frozen=True)
class Fleet:
    """The running system."""

    registry: Process
    api: str
    token: str
    http: httpx.Client
    database_url: str
    blockstore: str  # URL of its health port
    clients: int
    folder: Path

    @contextlib.contextmanager
    def another(self) -> Iterator[Fleet]:
        """The same system over a connection of its own, for another thread."""
        with httpx.Client(timeout=PATIENCE, headers=self.http.headers) as http:
            yield replace(self, http=http)

    def call(self, method: str, path: str, **body: Any) -> Any:
        answer = self.http.request(method, f"{self.api}/v1/{path}", json=body or None)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def held(self) -> dict[str, Any]:
        """What the block store says of the plans that it holds."""
        told: dict[str, Any] = self.http.get(f"{self.blockstore}/plans").json()
        return told

    def until_newest(self, revision: int) -> dict[str, Any]:
        """Wait until the block store holds a plan that is newer."""
        return self._until(lambda told: told["newest"] > revision, f"a plan newer than {revision}", GLANCE)

    def until_oldest(self, revision: int) -> dict[str, Any]:
        """Wait until the block store holds all plans, each of them newer."""
        return self._until(
            lambda told: told["plans"] == self.clients and told["oldest"] > revision,
            f"all plans newer than {revision}",
            LOOK,
        )

    def until_quiet(self) -> int:
        """Wait until nothing is on its way; returns the newest revision."""
        while True:
            before = self.until_oldest(0)["newest"]
            time.sleep(1.5)  # longer than the registry rests between its rounds
            if self.held()["newest"] == before and not self.call("GET", "info")["counts"]["unpublished_events"]:
                return int(before)

    def _until(self, holds: Callable[[dict[str, Any]], bool], what: str, pause: float) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while not holds(told := self.held()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"the block store has not got {what}: {told}")
            time.sleep(pause)
        return told


def mac(number: int) -> str:
    return f"52:54:00:{number >> 16 & 255:02x}:{number >> 8 & 255:02x}:{number & 255:02x}"


@contextlib.contextmanager
def running(folder: Path, *, clients: int, images: int) -> Iterator[Fleet]:
    """A fleet whose plans have all reached the block store; the default link leads to the first image."""
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(folder))
        postgres = stack.enter_context(PostgresServer(durable=True))
        token = secrets.token_hex(32)
        environment = os.environ | {
            "BOOTLINK_NATS_URL": nats.url,
            "BOOTLINK_DATABASE_URL": postgres.url,
            "BOOTLINK_DATA": str(folder / "data"),
            "BOOTLINK_LOG_FORMAT": "json",
            "BOOTLINK_REGISTRY_API_PORT": "0",
            "BOOTLINK_ADMIN_TOKEN": token,
            "BOOTLINK_BLOCKSTORE_HOST": "127.0.0.1",
            "BOOTLINK_BLOCKSTORE_PORT": "0",
            "BOOTLINK_BLOCKSTORE_CACHE": "32MiB",
            "BOOTLINK_TFTP_HOST": "127.0.0.1",
            "BOOTLINK_TFTP_PORT": "0",
        }
        registry, addresses = stack.enter_context(service("registry", folder, environment))
        _, store = stack.enter_context(service("blockstore", folder, environment))
        for node in ("one", "two"):
            stack.enter_context(
                service("tftp", folder, environment | {"BOOTLINK_NODE": node, "BOOTLINK_DATA": str(folder / node)})
            )
        asyncio.run(_fill(postgres.url, folder, clients=clients, images=images))
        http = stack.enter_context(httpx.Client(timeout=PATIENCE, headers={"Authorization": f"Bearer {token}"}))
        fleet = Fleet(
            registry=registry,
            api=f"http://{addresses['api']}",
            token=token,
            http=http,
            database_url=postgres.url,
            blockstore=f"http://{store['health']}",
            clients=clients,
            folder=folder,
        )
        fleet.call("PUT", "links", scope="default", image=image(0))
        fleet.until_quiet()
        yield fleet


def image(number: int) -> str:
    return f"image-{number:03}"


@contextlib.contextmanager
def service(name: str, folder: Path, environment: dict[str, str]) -> Iterator[tuple[Process, dict[str, str]]]:
    """`python -m bootlink_<name>`, ready, and where it listens."""
    log = folder / f"{name}-{BootId.mint()}.log"
    process = Process([sys.executable, "-m", f"bootlink_{name}"], log=log, env=environment)
    process.start(lambda: '"event": "ready"' in log.read_text())
    said = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    try:
        yield process, {line["what"]: line["address"] for line in said if line["event"] == "listening"}
    finally:
        process.stop()


async def _fill(url: str, folder: Path, *, clients: int, images: int) -> None:
    """Clients in 100 groups, and images with one version each."""
    connection = await asyncpg.connect(url)
    try:
        for number in range(images):
            name, disk = image(number), raw_disk(folder / f"{image(number)}.img")
            stat, layer = disk.stat(), BootId.mint()
            await connection.execute("INSERT INTO images (name) VALUES ($1)", name)
            await connection.execute(
                """
                INSERT INTO layers (id, path, format, virtual_size, file_size, mtime_ns, disk_usage)
                VALUES ($1, $2, 'raw', $3, $3, $4, 0)
                """,
                *(layer, str(disk), stat.st_size, stat.st_mtime_ns),
            )
            await connection.execute(
                "INSERT INTO versions (image, number, layer, content) VALUES ($1, 1, $2, $2)", name, layer
            )
            await connection.execute("INSERT INTO channels (image, name, version) VALUES ($1, 'production', 1)", name)
        await connection.copy_records_to_table(
            "clients",
            columns=("mac", "name", "group_name"),
            records=[(mac(n), f"pc-{n:05}", f"group-{n % 100:02}") for n in range(1, clients + 1)],
        )
    finally:
        await connection.close()
