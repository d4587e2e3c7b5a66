"""A database of an older schema that is in use, brought to the newest: nothing is lost, and PCs get the same layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command

from bootlink_registry import schema
from lab.chain import Chain
from lab.nats import NatsServer
from lab.registry import Registry, registry_on

OLD = "0002"
PCS = {"pc-01": "52:54:00:00:00:01", "pc-02": "52:54:00:00:00:02", "pc-03": "52:54:00:00:00:03"}
GROUPS = {"pc-02": "room-1"}
LINKS: tuple[dict[str, Any], ...] = (
    {"scope": "default", "name": "", "channel": "production", "version": None, "policy": "discard", "chap": "off"},
    {"scope": "group", "name": "room-1", "channel": "test", "version": None, "policy": "discard", "chap": "one-way"},
    {"scope": "client", "name": "pc-03", "channel": None, "version": 1, "policy": "keep", "chap": "off"},
)


async def fill(registry: Registry, chain: Chain) -> None:
    """A room in today's registry, to compare with."""
    await chain.add_to(registry)
    answer = await registry.http.put("/v1/images/gold/channels/test", json={"version": 2})
    assert answer.status_code == 200, answer.text
    for name, mac in PCS.items():
        await registry.add_client(mac, name, group=GROUPS.get(name))
    for link in LINKS:
        wish = {key: value for key, value in link.items() if value is not None}
        answer = await registry.http.put("/v1/links", json=wish | {"image": "gold"})
        assert answer.status_code == 200, answer.text


async def fill_old(url: str, versions: list[dict[str, Any]]) -> None:
    """The same room, as rows of the old schema."""
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT version_num FROM alembic_version") == OLD
        await connection.execute("INSERT INTO images (name, note) VALUES ('gold', 'the first')")
        parent = None
        for row in versions:
            await connection.execute(
                "INSERT INTO versions (image, number, parent, layer, path, format, virtual_size, file_size, mtime_ns, "
                "disk_usage, note) VALUES ('gold', $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
                row["number"], parent, row["id"], row["path"], row["format"], row["virtual_size"], row["file_size"],
                row["mtime_ns"], row["disk_usage"], f"note {row['number']}",
            )  # fmt: skip
            parent = row["number"]
        for channel, number in (("production", parent), ("test", 2)):
            await connection.execute("INSERT INTO channels VALUES ('gold', $1, $2)", channel, number)
        for name, mac in PCS.items():
            await connection.execute(
                "INSERT INTO clients (mac, name, group_name) VALUES ($1, $2, $3)", mac, name, GROUPS.get(name)
            )
        for link in LINKS:
            await connection.execute(
                "INSERT INTO links (scope, key, image, channel, version, policy, chap) "
                "VALUES ($1, $2, 'gold', $3, $4, $5, $6)",
                link["scope"], PCS.get(link["name"], link["name"]), link["channel"], link["version"], link["policy"],
                link["chap"],
            )  # fmt: skip
        for mac in PCS.values():  # what was compiled then is in a form of then
            await connection.execute("INSERT INTO plans VALUES ($1, nextval('plan_revision'), '{}')", mac)
    finally:
        await connection.close()


async def layers_of(registry: Registry) -> dict[str, Any]:
    """What each PC is served, by LUN: image, version and the layers, top first."""
    plans = {name: (await registry.get(f"/v1/clients/{name}"))["plan"] for name in PCS}
    return {
        name: [(disk["lun"], disk["image"], disk["version"], disk["layers"]) for disk in plan["disks"]]
        for name, plan in plans.items()
    }


async def test_a_database_in_use_is_upgraded_and_serves_the_same_layers(
    nats: NatsServer, database: str, empty_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with registry_on(nats.url, database, tmp_path / "today") as registry:
        await fill(registry, Chain(tmp_path, 3))
        expected = await layers_of(registry)
        assert {name: [(lun, number, len(stack)) for lun, _, number, stack in disks] for name, disks in expected.items()
                } == {"pc-01": [(0, 3, 3)], "pc-02": [(0, 2, 2)], "pc-03": [(0, 1, 1)]}  # fmt: skip
    connection = await asyncpg.connect(database)
    rows = await connection.fetch("SELECT v.number, l.* FROM versions v JOIN layers l ON l.id = v.layer ORDER BY 1")
    await connection.close()

    upgrade = command.upgrade
    with monkeypatch.context() as patched:
        patched.setattr(command, "upgrade", lambda config, _: upgrade(config, OLD))
        await schema.migrate(empty_database)
    await fill_old(empty_database, [dict(row) for row in rows])

    async with registry_on(nats.url, empty_database, tmp_path / "upgraded") as registry:
        assert await layers_of(registry) == expected
        (image,) = (await registry.get("/v1/images"))["items"]
        assert (image["name"], image["note"], image["channels"]) == ("gold", "the first", {"production": 3, "test": 2})
        versions = (await registry.get("/v1/images/gold/versions"))["items"]
        assert {(one["number"], one["note"]) for one in versions} == {(n, f"note {n}") for n in (1, 2, 3)}
        clients = (await registry.get("/v1/clients"))["items"]
        assert {(one["name"], one["mac"], one["group"]) for one in clients} == {
            (name, mac, GROUPS.get(name)) for name, mac in PCS.items()
        }
        links = (await registry.get("/v1/links"))["items"]
        wanted = {(*link.values(), "gold", 0, None) for link in LINKS}
        fields = (*LINKS[0], "image", "lun", "start")
        assert {tuple(one[field] for field in fields) for one in links} == wanted
        await registry.all_told()
        # And it is worked on as any other: a number is never given twice, and a channel goes back.
        added = await registry.http.post("/v1/images/gold/versions", json={"path": str(tmp_path / "gold.img")})
        assert (added.status_code, added.json()["number"]) == (201, 4)
        moved = await registry.http.put("/v1/images/gold/channels/production", json={"version": 1})
        assert moved.status_code == 200, moved.text
        assert (await layers_of(registry))["pc-01"] == expected["pc-03"]
