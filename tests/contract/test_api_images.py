"""Versions and channels over the API: added, told, published, taken back and removed, and how each says no."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bootlink_disks import create_vhd_differencing, create_vhd_dynamic
from bootlink_events import ImageChanged, ImagePublished, ImageRemoved, ImageVersionAdded
from bootlink_runtime import follow
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.registry import Registry, raw_disk, registry_on, until

MAC = "52:54:00:12:34:56"


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        yield running


def problem(answer: httpx.Response, status: int) -> Any:
    """The problem document of an answer, which must be one with this status."""
    assert answer.status_code == status, answer.text
    told = answer.json()
    assert told["detail"]
    assert told["remedy"]
    return told


async def add_version(registry: Registry, name: str, path: Path, **more: Any) -> Any:
    answer = await registry.http.post(f"/v1/images/{name}/versions", json={"path": str(path), **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def publish(registry: Registry, name: str, version: int, channel: str = "production") -> Any:
    answer = await registry.http.put(f"/v1/images/{name}/channels/{channel}", json={"version": version})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def with_versions(registry: Registry, folder: Path, count: int, name: str = "demo") -> None:
    """An image with this many versions, each a whole disk."""
    await registry.add_image(name, raw_disk(folder / f"{name}-1.img"))
    for number in range(2, count + 1):
        await add_version(registry, name, raw_disk(folder / f"{name}-{number}.img"), note=f"number {number}")


async def planned(registry: Registry, version: int) -> None:
    """Wait until the client's plan, as it was delivered, names this version."""

    async def holds() -> bool:
        plan = (await registry.get(f"/v1/clients/{MAC}"))["plan"]
        return bool(plan["delivered"] and plan["disks"] and plan["disks"][0]["version"] == version)

    await until(holds, f"a plan with version {version}")


# -- versions -------------------------------------------------------------------------------------------------------


async def test_a_new_version_gets_the_next_number_and_moves_no_channel(registry: Registry, tmp_path: Path) -> None:
    await registry.add_image("demo", raw_disk(tmp_path / "one.img"))
    second = await add_version(registry, "demo", raw_disk(tmp_path / "two.img"), note="drivers")
    assert (second["number"], second["note"], second["channels"], second["layers"]) == (2, "drivers", [], 1)
    assert (second["owned"], second["author"]) == (False, "admin")
    image = await registry.get("/v1/images/demo")
    assert image["channels"] == {"production": 1}
    assert [version["number"] for version in image["versions"]] == [2, 1]
    assert await registry.get("/v1/images/demo/versions/2") == second
    third = await add_version(registry, "demo", raw_disk(tmp_path / "three.img"), channel="test")
    assert third["channels"] == ["test"]


async def test_a_differencing_disk_is_added_on_the_version_that_it_was_made_on(
    registry: Registry, tmp_path: Path
) -> None:
    parent = create_vhd_dynamic(tmp_path / "gold.vhd", raw_disk(tmp_path / "gold.img"))
    child = create_vhd_differencing(tmp_path / "child.vhd", parent, [(0, b"x" * 512)])
    await registry.add_image("gold", parent.path)
    second = await add_version(registry, "gold", child.path, parent={"image": "gold", "version": 1})
    assert (second["parent"], second["layers"], second["format"]) == (1, 2, "vhd-differencing")
    first = await registry.get("/v1/images/gold/versions/1")
    assert second["below"] == first["layer"]
    body = {"name": "other", "path": str(child.path), "parent": {"image": "gold", "version": 1}}
    answer = await registry.http.post("/v1/images", json=body)
    assert answer.status_code == 201
    (version,) = answer.json()["versions"]
    assert (version["parent"], version["layers"], version["below"]) == (None, 2, first["layer"])


async def test_a_differencing_disk_on_another_parent_is_refused(registry: Registry, tmp_path: Path) -> None:
    parent = create_vhd_dynamic(tmp_path / "gold.vhd", raw_disk(tmp_path / "gold.img"))
    child = create_vhd_differencing(tmp_path / "child.vhd", parent, [(0, b"x" * 512)])
    await registry.add_image("wrong", create_vhd_dynamic(tmp_path / "wrong.vhd", tmp_path / "gold.img").path)
    body = {"name": "demo", "path": str(child.path)}
    told = problem(
        await registry.http.post("/v1/images", json={**body, "parent": {"image": "wrong", "version": 1}}), 422
    )
    assert "another disk" in told["detail"]
    problem(await registry.http.post("/v1/images", json={**body, "parent": {"image": "wrong", "version": 2}}), 404)
    told = problem(await registry.http.post("/v1/images", json=body), 422)
    assert "--parent" in told["remedy"]
    problem(await registry.http.get("/v1/images/demo"), 404)


async def test_a_parent_that_was_changed_under_us_is_told(registry: Registry, tmp_path: Path) -> None:
    parent = create_vhd_dynamic(tmp_path / "gold.vhd", raw_disk(tmp_path / "gold.img"))
    child = create_vhd_differencing(tmp_path / "child.vhd", parent, [(0, b"x" * 512)])
    await registry.add_image("gold", parent.path)
    with parent.path.open("ab") as file:
        file.write(parent.path.read_bytes()[-512:])
    body = {"name": "demo", "path": str(child.path), "parent": {"image": "gold", "version": 1}}
    told = problem(await registry.http.post("/v1/images", json=body), 409)
    assert "changed after it was added" in told["detail"]


async def test_a_parent_that_was_moved_is_told(registry: Registry, tmp_path: Path) -> None:
    parent = create_vhd_dynamic(tmp_path / "gold.vhd", raw_disk(tmp_path / "gold.img"))
    child = create_vhd_differencing(tmp_path / "child.vhd", parent, [(0, b"x" * 512)])
    await registry.add_image("gold", parent.path)
    parent.path.rename(tmp_path / "elsewhere.vhd")
    body = {"name": "demo", "path": str(child.path), "parent": {"image": "gold", "version": 1}}
    answer = await registry.http.post("/v1/images", json=body)
    assert answer.status_code in (409, 422)  # by whether the regular look at all layers has seen it
    assert str(parent.path) in answer.json()["detail"]
    problem(await registry.http.get("/v1/images/demo"), 404)


async def test_a_file_that_another_program_writes_is_not_added(registry: Registry, tmp_path: Path) -> None:
    disk = raw_disk(tmp_path / "copy.img")
    with disk.open("ab"):
        told = problem(await registry.http.post("/v1/images", json={"name": "demo", "path": str(disk)}), 422)
    assert "open for writing" in told["detail"]
    await registry.add_image("demo", disk)


async def test_a_file_of_the_image_store_is_not_added_in_place(registry: Registry, tmp_path: Path) -> None:
    store = tmp_path / "data" / "images"
    store.mkdir(parents=True)
    (tmp_path / "way").symlink_to(store)
    disk = raw_disk(store / "disk.img")
    for path in (disk, tmp_path / "way" / "disk.img"):
        told = problem(await registry.http.post("/v1/images", json={"name": "demo", "path": str(path)}), 422)
        assert "image store" in told["detail"]


async def test_the_log_pages_from_the_newest_version_down(registry: Registry, tmp_path: Path) -> None:
    await with_versions(registry, tmp_path, 5)
    first = await registry.get("/v1/images/demo/versions", limit=2)
    assert [version["number"] for version in first["items"]] == [5, 4]
    second = await registry.get("/v1/images/demo/versions", limit=2, before=first["next"])
    assert [version["number"] for version in second["items"]] == [3, 2]
    last = await registry.get("/v1/images/demo/versions", limit=2, before=second["next"])
    assert ([version["number"] for version in last["items"]], last["next"]) == ([1], None)
    assert first["items"][0].keys() >= {"number", "note", "author", "file_size", "parent", "sha256", "created"}


async def test_a_note_may_change_and_the_version_does_not(registry: Registry, tmp_path: Path) -> None:
    await with_versions(registry, tmp_path, 2)
    before = await registry.get("/v1/images/demo/versions/2")
    answer = await registry.http.patch("/v1/images/demo/versions/2", json={"note": "with Office"})
    assert answer.json() == {**before, "note": "with Office"}
    assert (await registry.http.patch("/v1/images/demo", json={"note": "golden"})).json()["note"] == "golden"
    problem(await registry.http.patch("/v1/images/demo/versions/9", json={"note": ""}), 404)
    problem(await registry.http.patch("/v1/images/demo", json={"note": "a\0b"}), 422)


# -- channels -------------------------------------------------------------------------------------------------------


async def test_a_publish_moves_the_plans_of_its_channel_and_a_rollback_takes_them_back(
    registry: Registry, tmp_path: Path
) -> None:
    await with_versions(registry, tmp_path, 2)
    await registry.add_client(MAC, "pc-07", group="room")
    await registry.link("group", "room", "demo")
    await publish(registry, "demo", 1, "test")
    image = await publish(registry, "demo", 2)
    assert image["channels"] == {"production": 2, "test": 1}
    assert [version["channels"] for version in image["versions"]] == [["production"], ["test"]]
    answer = await registry.http.post("/v1/images/demo/channels/production/rollback", json={})
    assert answer.json()["channels"] == {"production": 1, "test": 1}
    answer = await registry.http.post("/v1/images/demo/channels/production/rollback", json={})
    assert answer.json()["channels"]["production"] == 2  # a second one undoes the first
    answer = await registry.http.post("/v1/images/demo/channels/production/rollback", json={"version": 1})
    assert answer.json()["channels"]["production"] == 1
    # No block store runs, so that the plan cannot boot; but it names the disk that it would.
    client = await registry.get(f"/v1/clients/{MAC}")
    assert client["link"]["version"] == 1
    assert client["plan"]["refusal"]["cause"] == "no_blockstore"
    await planned(registry, 1)
    await publish(registry, "demo", 2)
    await planned(registry, 2)


async def test_what_cannot_be_published_is_told(registry: Registry, tmp_path: Path) -> None:
    await with_versions(registry, tmp_path, 2)
    told = problem(await registry.http.put("/v1/images/demo/channels/production", json={"version": 7}), 404)
    assert "there are: 2, 1" in told["detail"]
    problem(await registry.http.put("/v1/images/gone/channels/production", json={"version": 1}), 404)
    told = problem(await registry.http.put("/v1/images/demo/channels/7", json={"version": 2}), 422)
    assert "number" in told["detail"]
    problem(await registry.http.put("/v1/images/demo/channels/Test", json={"version": 2}), 422)
    told = problem(await registry.http.post("/v1/images/demo/channels/production/rollback", json={}), 409)
    assert "nothing but version 1" in told["detail"]
    told = problem(await registry.http.post("/v1/images/demo/channels/beta/rollback", json={}), 404)
    assert "there are: production" in told["detail"]
    (tmp_path / "demo-2.img").unlink()
    told = problem(await registry.http.put("/v1/images/demo/channels/production", json={"version": 2}), 409)
    assert "demo-2.img is gone" in told["detail"]
    assert (await registry.get("/v1/images/demo"))["channels"] == {"production": 1}


async def test_a_channel_goes_when_no_link_names_it(registry: Registry, tmp_path: Path) -> None:
    await with_versions(registry, tmp_path, 1)
    await publish(registry, "demo", 1, "test")
    await registry.link("default", "", "demo", channel="test")
    told = problem(await registry.http.delete("/v1/images/demo/channels/test"), 409)
    assert "1 link" in told["detail"]
    await registry.link("default", "", "demo")
    assert (await registry.http.delete("/v1/images/demo/channels/test")).status_code == 204
    assert (await registry.get("/v1/images/demo"))["channels"] == {"production": 1}
    problem(await registry.http.delete("/v1/images/demo/channels/test"), 404)


# -- removing -------------------------------------------------------------------------------------------------------


async def test_an_image_is_removed_when_nothing_needs_it_and_its_file_stays(registry: Registry, tmp_path: Path) -> None:
    disk = raw_disk(tmp_path / "demo.img")
    await registry.add_image("demo", disk)
    await registry.add_client(MAC, "pc-07")
    await registry.link("client", "pc-07", "demo")
    told = problem(await registry.http.delete("/v1/images/demo"), 409)
    assert "the link of pc-07" in told["detail"]
    assert (await registry.http.delete("/v1/links/client/pc-07")).status_code == 204
    assert (await registry.http.delete("/v1/images/demo")).status_code == 204
    problem(await registry.http.get("/v1/images/demo"), 404)
    problem(await registry.http.delete("/v1/images/demo"), 404)
    assert disk.exists()
    await registry.add_image("demo", disk)  # nothing is left in its way


async def test_an_image_that_is_parent_of_another_stays(registry: Registry, tmp_path: Path) -> None:
    parent = create_vhd_dynamic(tmp_path / "gold.vhd", raw_disk(tmp_path / "gold.img"))
    child = create_vhd_differencing(tmp_path / "child.vhd", parent, [(0, b"x" * 512)])
    await registry.add_image("gold", parent.path)
    body = {"name": "games", "path": str(child.path), "parent": {"image": "gold", "version": 1}}
    assert (await registry.http.post("/v1/images", json=body)).status_code == 201
    told = problem(await registry.http.delete("/v1/images/gold"), 409)
    assert "games:1 stands on image gold" in told["detail"]
    assert "merge games:1" in told["remedy"]
    assert (await registry.http.delete("/v1/images/games")).status_code == 204
    assert (await registry.http.delete("/v1/images/gold")).status_code == 204


async def test_a_version_is_removed_when_nothing_needs_it_and_its_number_is_not_given_again(
    registry: Registry, tmp_path: Path
) -> None:
    await with_versions(registry, tmp_path, 3)
    told = problem(await registry.http.delete("/v1/images/demo/versions/1"), 409)
    assert "channel production" in told["detail"]
    await registry.link("default", "", "demo", version=2)
    told = problem(await registry.http.delete("/v1/images/demo/versions/2"), 409)
    assert "the link of everybody" in told["detail"]
    assert (await registry.http.delete("/v1/images/demo/versions/3")).status_code == 204
    problem(await registry.http.delete("/v1/images/demo/versions/3"), 404)
    assert (await add_version(registry, "demo", tmp_path / "demo-3.img"))["number"] == 4
    await registry.link("default", "", "demo")
    assert (await registry.http.delete("/v1/images/demo/versions/2")).status_code == 204
    assert (await registry.http.delete("/v1/images/demo/versions/4")).status_code == 204
    told = problem(await registry.http.delete("/v1/images/demo/versions/1"), 409)


async def test_a_version_that_another_stands_on_stays(registry: Registry, tmp_path: Path) -> None:
    parent = create_vhd_dynamic(tmp_path / "gold.vhd", raw_disk(tmp_path / "gold.img"))
    child = create_vhd_differencing(tmp_path / "child.vhd", parent, [(0, b"x" * 512)])
    await registry.add_image("gold", parent.path)
    await add_version(registry, "gold", child.path, parent={"image": "gold", "version": 1}, channel="production")
    told = problem(await registry.http.delete("/v1/images/gold/versions/1"), 409)
    assert "gold:2 stands on version 1" in told["detail"]


# -- events ---------------------------------------------------------------------------------------------------------


async def test_every_change_of_an_image_is_told_in_its_order(
    nats: NatsServer, registry: Registry, tmp_path: Path
) -> None:
    await with_versions(registry, tmp_path, 2)
    await publish(registry, "demo", 2)
    await publish(registry, "demo", 2)  # changes nothing, and tells nobody
    await registry.http.post("/v1/images/demo/channels/production/rollback", json={})
    await registry.http.patch("/v1/images/demo/versions/2", json={"note": "tried"})
    await publish(registry, "demo", 2, "test")
    await registry.http.delete("/v1/images/demo/channels/test")
    await registry.http.delete("/v1/images/demo/versions/2")
    await registry.http.delete("/v1/images/demo")
    await registry.all_told()
    async with bus_on(nats.url, make=False) as bus:
        told = [event.decode() async for event in follow(bus, subject="bootlink.v1.image.>", wait=False)]
    what = [
        (
            type(event),
            getattr(event, "version", None),
            getattr(event, "channel", None),
            getattr(event, "rollback", None),
        )
        for event in told
    ]
    assert what == [
        (ImageVersionAdded, 1, None, None),
        (ImagePublished, 1, "production", False),
        (ImageVersionAdded, 2, None, None),
        (ImagePublished, 2, "production", False),
        (ImagePublished, 1, "production", True),
        (ImageChanged, 2, None, None),
        (ImagePublished, 2, "test", False),
        (ImageChanged, None, "test", None),
        (ImageRemoved, 2, None, None),
        (ImageRemoved, None, None, None),
    ]
    assert isinstance(told[4], ImagePublished)
    assert told[4].former == 2
