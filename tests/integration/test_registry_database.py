"""The registry and its database at the start: late, absent, wrong, of another version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from bootlink_registry import SERVICE, schema
from bootlink_registry.settings import RegistrySettings
from bootlink_runtime import Chassis, StartupError
from lab.nats import NatsServer
from lab.postgres import PostgresServer
from lab.registry import TOKEN, api_of, registry_on, until

NOWHERE = "nats://127.0.0.1:9"  # the discard port: nobody listens there, and the registry starts all the same


@contextlib.asynccontextmanager
async def starting(database_url: str, folder: Path) -> AsyncIterator[tuple[Chassis, httpx.AsyncClient]]:
    """A registry that need not become ready."""
    told = {"nats_url": NOWHERE, "database_url": database_url, "data": folder, "node": "lab"}
    settings = RegistrySettings.model_validate(told | {"api_port": 0, "admin_token": TOKEN})
    chassis = Chassis(SERVICE, settings)
    run = asyncio.ensure_future(SERVICE.run(chassis, settings))
    try:
        await until(lambda: bool(chassis.health.addresses) or run.done(), "the API to listen")
        async with api_of(chassis) as http:
            yield chassis, http
    finally:
        chassis.stopping.set()
        await run
        await chassis.close()


async def test_a_database_that_comes_late_is_waited_for(tmp_path: Path) -> None:
    with PostgresServer() as server:
        server.kill()
        async with starting(server.url, tmp_path) as (chassis, http):
            answer = await http.get("/v1/images")
            assert answer.status_code == 503
            assert answer.json()["remedy"]
            assert answer.json()["detail"].startswith("PostgreSQL does not answer: ")
            assert "Errno" not in answer.json()["detail"]
            await asyncio.sleep(1)
            assert not chassis.health.ready
            assert not chassis.health.report()["checks"]["database"]["ok"]
            await asyncio.to_thread(server.start)
            await until(lambda: chassis.health.ready, "the registry to be ready")
            assert (await http.get("/v1/images")).json() == {"items": [], "next": None}


async def test_a_registry_that_waits_for_its_database_stops_when_it_is_told(tmp_path: Path) -> None:
    async with starting("postgresql://bootlink@127.0.0.1:9/bootlink", tmp_path) as (chassis, _):
        await asyncio.sleep(0.2)
        assert not chassis.health.ready


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://127.0.0.1/bootlink", "BOOTLINK_DATABASE_URL is no database URL"),
        ("postgresql://127.0.0.1:port/bootlink", "BOOTLINK_DATABASE_URL is no database URL"),
        ("/nothing?", "no such database"),
        ("nobody", "PostgreSQL refuses the user"),
    ],
)
async def test_what_waiting_cannot_cure_is_one_line_at_the_start(
    url: str, told: str, database: str, nats: NatsServer, tmp_path: Path
) -> None:
    if url.startswith("/"):
        url = database.replace(f"/{database.split('/')[3].split('?')[0]}?", url)
    elif url == "nobody":
        url = database.replace("bootlink@", "nobody@")
    with pytest.raises(StartupError, match=told) as refused:
        async with registry_on(nats.url, url, tmp_path):
            pass
    assert refused.value.remedy


async def test_registries_that_start_at_once_migrate_once(empty_database: str) -> None:
    await asyncio.gather(*(schema.migrate(empty_database) for _ in range(4)))
    connection = await asyncpg.connect(empty_database)
    revision = await connection.fetchval("SELECT version_num FROM alembic_version")
    await connection.close()
    assert revision == schema.expected()


async def test_a_database_of_a_newer_version_is_left_alone(database: str, nats: NatsServer, tmp_path: Path) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    await connection.close()
    with pytest.raises(StartupError, match="another version of Bootlink"):
        async with registry_on(nats.url, database, tmp_path):
            pass


async def test_what_was_set_is_there_after_a_restart(nats: NatsServer, database: str, tmp_path: Path) -> None:
    async with registry_on(nats.url, database, tmp_path) as registry:
        before = await registry.add_client("52:54:00:12:34:56", "pc-07", group="a", address="10.77.0.9")
    async with registry_on(nats.url, database, tmp_path) as registry:
        assert (await registry.get("/v1/clients"))["items"] == [before]


async def test_a_taken_port_is_told_with_its_setting(nats: NatsServer, database: str, tmp_path: Path) -> None:
    async with registry_on(nats.url, database, tmp_path / "one") as registry:
        port = next(a.port for a in registry.chassis.health.addresses if a.what == "api")
        with pytest.raises(StartupError, match="BOOTLINK_REGISTRY_API_PORT"):
            async with registry_on(nats.url, database, tmp_path / "two", api_port=port):
                pass
