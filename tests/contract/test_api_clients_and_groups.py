"""The API's clients, groups and enrolment: names that change, conflicts told by whose they are, and who may come in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_events import BootId, ClientSeen
from bootlink_runtime import follow
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.registry import Registry, problem, raw_disk, registry_on, until

MAC = "52:54:00:12:34:56"


def mac(number: int) -> str:
    return f"52:54:00:00:00:{number:02x}"


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        yield running


async def told(nats: NatsServer, what: str, registry: Registry) -> list[dict[str, Any]]:
    """All events of a kind, once all that happened is published."""
    await registry.all_told()
    async with bus_on(nats.url, make=False) as bus:
        return [event.data async for event in follow(bus, subject=f"bootlink.v1.{what}.>", wait=False)]


async def test_a_client_is_renamed_disabled_noted_and_removed_and_each_is_told(
    registry: Registry, nats: NatsServer
) -> None:
    await registry.add_client(MAC, "pc-07", group="room-1", note="by the door")
    for change in (
        {"name": "pc-08"},
        {"disabled": True, "note": "screen is broken"},
        {"disabled": True},  # as it is already
        {"group": None, "disabled": False},
    ):
        answer = await registry.http.patch(f"/v1/clients/{MAC}", json=change)
        assert answer.status_code == 200, answer.text
        assert answer.json().items() >= change.items()
    problem(await registry.http.get("/v1/clients/pc-07"), 404)
    assert (await registry.http.delete("/v1/clients/pc-08")).status_code == 204
    problem(await registry.http.delete("/v1/clients/pc-08"), 404)
    events = await told(nats, "client.changed", registry)
    kept = ("change", "client", "former", "group", "disabled", "note")
    assert [tuple(event[field] for field in kept) for event in events] == [
        ("added", "pc-07", None, "room-1", False, "by the door"),
        ("changed", "pc-08", "pc-07", "room-1", False, "by the door"),
        ("changed", "pc-08", None, "room-1", True, "screen is broken"),
        ("changed", "pc-08", None, None, False, "screen is broken"),
        ("removed", "pc-08", None, None, False, "screen is broken"),
    ]


async def test_a_removed_client_takes_its_own_links_along_and_nobody_elses(registry: Registry, tmp_path: Path) -> None:
    await registry.add_image("win11", raw_disk(tmp_path / "win11.img"))
    await registry.add_client(MAC, "pc-07")
    await registry.link("client", "pc-07", "win11")
    await registry.link("client", "pc-07", "win11", lun=1)
    await registry.link("default", "", "win11")
    menu = {"entries": [{"name": "again", "image": "win11"}]}
    assert (await registry.http.put("/v1/menus/client/pc-07", json=menu)).status_code == 200
    assert (await registry.http.delete("/v1/clients/pc-07")).status_code == 204
    assert [link["scope"] for link in (await registry.get("/v1/links"))["items"]] == ["default"]


async def test_a_super_client_is_not_removed_with_what_it_wrote(registry: Registry, tmp_path: Path) -> None:
    await registry.add_image("win11", raw_disk(tmp_path / "win11.img"))
    await registry.add_client(MAC, "pc-07")
    assert (await registry.http.put("/v1/clients/pc-07/branch", json={"image": "win11"})).status_code in (200, 201)
    answer = problem(await registry.http.delete("/v1/clients/pc-07"), 409)
    assert "client abandon pc-07" in answer["remedy"]


async def test_a_conflict_says_whose_the_name_the_address_or_the_mac_is(registry: Registry) -> None:
    await registry.add_client(mac(1), "pc-01", address="10.77.0.9")
    await registry.add_client(mac(2), "pc-02")
    for body, whose in (
        ({"name": "pc-01"}, f"{mac(1)} is called pc-01 already"),
        ({"address": "10.77.0.9"}, f"10.77.0.9 is reserved for pc-01 ({mac(1)}) already"),
    ):
        assert problem(await registry.http.patch("/v1/clients/pc-02", json=body), 409)["detail"] == whose
        assert problem(await registry.http.post("/v1/clients", json={"mac": mac(3)} | body), 409)["detail"] == whose
    answer = problem(await registry.http.post("/v1/clients", json={"mac": "52-54-00-00-00-01", "name": "pc-9"}), 409)
    assert answer["detail"] == f"{mac(1)} is client pc-01 already"
    assert (await registry.get("/v1/clients/pc-02"))["address"] is None


async def test_groups_are_listed_with_their_links_and_renamed_with_their_clients(
    registry: Registry, nats: NatsServer, tmp_path: Path
) -> None:
    for name in ("win11", "games"):
        await registry.add_image(name, raw_disk(tmp_path / f"{name}.img"))
    for number in (1, 2):
        await registry.add_client(mac(number), f"pc-{number}", group="room-1")
    await registry.link("group", "room-1", "win11", policy="keep")
    await registry.link("group", "room-1", "games", lun=1)
    menu = {"entries": [{"name": "games", "image": "games"}]}
    assert (await registry.http.put("/v1/menus/group/room-1", json=menu)).status_code == 200
    await registry.link("group", "later", "win11")
    await registry.http.patch("/v1/enrolment", json={"group": "room-1"})
    listed = (await registry.get("/v1/groups"))["items"]
    assert [(group["name"], group["clients"], len(group["links"])) for group in listed] == [
        ("later", 0, 1),
        ("room-1", 2, 2),
    ]
    assert (await registry.get("/v1/groups", limit=1))["next"] == "later"

    renamed = await registry.http.patch("/v1/groups/room-1", json={"name": "library"})
    assert renamed.status_code == 200, renamed.text
    assert [link["image"] for link in renamed.json()["links"]] == ["win11", "games"]
    problem(await registry.http.get("/v1/groups/room-1"), 404)
    client = await registry.get("/v1/clients/pc-1")
    assert (client["group"], client["link"]["image"], client["link"]["policy"]) == ("library", "win11", "keep")
    assert [entry["name"] for entry in client["plan"]["menu"]["entries"]] == ["link", "games"]
    assert (await registry.get("/v1/enrolment"))["group"] == "library"
    links = [(e["name"], e["lun"], e["removed"], e["menu"]) for e in await told(nats, "link.changed", registry)][-4:]
    assert links == [
        ("room-1", 0, True, []),
        ("room-1", 1, True, []),
        ("library", 0, False, ["games"]),
        ("library", 1, False, []),
    ]
    changed = [e["client"] for e in await told(nats, "client.changed", registry) if e["group"] == "library"]
    assert sorted(changed) == ["pc-1", "pc-2"]

    taken = problem(await registry.http.patch("/v1/groups/library", json={"name": "later"}), 409)
    assert "a group later already" in taken["detail"]
    problem(await registry.http.patch("/v1/groups/gone", json={"name": "new"}), 404)
    problem(await registry.http.patch("/v1/groups/library", json={"name": "No Name"}), 422)


async def test_clients_are_moved_together_or_not_at_all_and_strangers_are_named(registry: Registry) -> None:
    for number in (1, 2, 3):
        await registry.add_client(mac(number), f"pc-{number}", group="room-1")
    names = ["pc-1", "52-54-00-00-00-02", "pc-9", "pc-8"]
    answer = problem(await registry.http.post("/v1/groups/room-2/clients", json={"clients": names}), 404)
    assert answer["clients"] == ["pc-8", "pc-9"]
    problem(await registry.http.get("/v1/groups/room-2"), 404)
    moved = await registry.http.post("/v1/groups/room-2/clients", json={"clients": names[:2]})
    assert (moved.status_code, moved.json()["clients"]) == (200, 2)
    assert [client["name"] for client in (await registry.get("/v1/clients", group="room-1"))["items"]] == ["pc-3"]
    problem(await registry.http.post("/v1/groups/Room 2/clients", json={"clients": ["pc-1"]}), 422)


async def test_the_rule_of_enrolment_is_changed_while_the_registry_runs(registry: Registry, nats: NatsServer) -> None:
    assert await registry.get("/v1/enrolment") == {"policy": "accept", "pattern": "pc-{n:03}", "group": None}
    async with bus_on(nats.url) as bus:

        async def asks(number: int) -> None:
            bus.emit(ClientSeen(mac=mac(number), boot_id=BootId.mint(), arch="bios", vendor_class="PXEClient"))

        async def count(path: str, wanted: int) -> bool:
            return len((await registry.get(path))["items"]) == wanted

        answer = await registry.http.patch("/v1/enrolment", json={"pattern": "lab-{n:02}", "group": "new"})
        assert answer.json() == {"policy": "accept", "pattern": "lab-{n:02}", "group": "new"}
        await asks(1)
        await until(lambda: count("/v1/clients", 1), "the first PC to enrol")
        client = await registry.get(f"/v1/clients/{mac(1)}")
        assert (client["name"], client["group"], client["enrolled"]) == ("lab-01", "new", True)

        assert (await registry.http.patch("/v1/enrolment", json={"policy": "refuse"})).status_code == 200
        assert (await registry.get("/v1/info"))["enrol"] == "refuse"
        for number in (2, 3, 4):
            await asks(number)
        await until(lambda: count("/v1/sightings", 3), "three sightings")
        taken = await registry.http.post(f"/v1/sightings/{mac(2)}/accept", json={"note": "came today"})
        assert taken.status_code == 201, taken.text
        assert taken.json()["name"] == "lab-02"
        assert (taken.json()["group"], taken.json()["enrolled"], taken.json()["note"]) == ("new", False, "came today")
        own = await registry.http.post(f"/v1/sightings/{mac(3)}/accept", json={"name": "desk", "group": "desks"})
        assert (own.json()["name"], own.json()["group"]) == ("desk", "desks")
        assert (await registry.http.delete(f"/v1/sightings/{mac(4)}")).status_code == 204
        assert await count("/v1/sightings", 0)
        for number in (2, 4, 9):
            gone = problem(await registry.http.post(f"/v1/sightings/{mac(number)}/accept", json={}), 404)
            assert "client add" in gone["remedy"]
    changes = [(e["client"], e["change"]) for e in await told(nats, "client.changed", registry)]
    assert changes == [("lab-01", "enrolled"), ("lab-02", "added"), ("desk", "added")]


async def test_a_rule_that_makes_no_sense_is_refused(registry: Registry) -> None:
    for pattern in ("pc", "PC-{n}", "{n.__class__}", "{n:999999999}", "{n!r}", "{n}{n}{m}", "x" * 90 + "{n}", ""):
        problem(await registry.http.patch("/v1/enrolment", json={"pattern": pattern}), 422)
    for body in ({}, {"policy": "maybe"}, {"group": "No Group"}, {"name": "pc-{n}"}):
        problem(await registry.http.patch("/v1/enrolment", json=body), 422)
    assert (await registry.get("/v1/enrolment"))["pattern"] == "pc-{n:03}"
