"""The API's own layers: what one client has of its own over a pinned version, and what a rebase does to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.nats import NatsServer
from lab.registry import Registry, problem, raw_disk, registry_on

MAC = "52:54:00:12:34:56"


@pytest.fixture
async def room(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry with a client, and an image with two versions, of which the first is in production."""
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        for name in ("win11", "other"):
            await running.add_image(name, raw_disk(tmp_path / f"{name}.img"))
        second = {"path": str(raw_disk(tmp_path / "win11-2.img"))}
        assert (await running.http.post("/v1/images/win11/versions", json=second)).status_code == 201
        await running.add_client(MAC, "pc-07")
        yield running


async def disk(room: Registry) -> Any:
    (only,) = (await room.get("/v1/clients/pc-07"))["plan"]["disks"]
    return only


async def refused(room: Registry, status: int, **link: Any) -> Any:
    body = {"scope": "client", "name": "pc-07", "image": "win11", "own_layer": True, **link}
    return problem(await room.http.put("/v1/links", json=body), status)


async def rebase(room: Registry, **body: Any) -> Any:
    return await room.http.post("/v1/clients/pc-07/own-layer/rebase", json={"accept_loss": True, **body})


async def test_an_own_layer_pins_the_version_and_is_kept_unless_told(room: Registry) -> None:
    link = await room.link("client", "pc-07", "win11", own_layer=True)
    assert (link["own_layer"], link["channel"], link["version"], link["policy"]) == (True, None, 1, "keep")
    plan = await disk(room)
    assert (plan["version"], plan["policy"], plan["channel"]) == (1, "keep", None)
    assert plan["content"] not in (await room.get("/v1/images/win11"))["versions"][1].values()


async def test_it_stays_on_its_version_when_another_is_published(room: Registry) -> None:
    await room.link("client", "pc-07", "win11", own_layer=True)
    before = await disk(room)
    published = await room.http.put("/v1/images/win11/channels/production", json={"version": 2})
    assert published.status_code == 200
    assert await disk(room) == before
    link = await room.link("client", "pc-07", "win11", own_layer=True, chap="one-way")
    assert (link["version"], link["chap"]) == (1, "one-way")
    assert (await disk(room))["content"] == before["content"]


async def test_an_own_layer_is_never_put_on_another_version_or_image(room: Registry) -> None:
    await room.link("client", "pc-07", "win11", own_layer=True)
    other = await refused(room, 409, version=2)
    assert "cannot be carried to version 2 of win11" in other["detail"]
    assert other["remedy"] == "begin an empty one there: bootlink link rebase pc-07 --version 2"
    assert "bootlink link drop-own-layer pc-07" in (await refused(room, 409, image="other"))["remedy"]
    assert (await disk(room))["version"] == 1


async def test_only_a_client_has_one(room: Registry) -> None:
    for scope, name in (("group", "room-1"), ("default", "")):
        assert "only a client" in (await refused(room, 422, scope=scope, name=name))["detail"]


async def test_a_link_without_it_leaves_it_alone(room: Registry) -> None:
    await room.link("client", "pc-07", "win11", own_layer=True)
    content = (await disk(room))["content"]
    link = await room.link("client", "pc-07", "other")
    assert (link["own_layer"], link["policy"]) == (False, "discard")
    assert (await disk(room))["content"] != content
    await room.link("client", "pc-07", "win11", own_layer=True)
    assert (await disk(room))["content"] == content


async def test_a_rebase_begins_empty_upon_another_version_and_can_be_taken_back(room: Registry) -> None:
    await room.link("client", "pc-07", "win11", own_layer=True)
    first = await disk(room)
    link = (await rebase(room, version=2)).json()
    assert (link["version"], link["policy"], link["own_layer"]) == (2, "keep", True)
    second = await disk(room)
    assert (second["version"], second["policy"]) == (2, "keep")
    assert second["content"] != first["content"]
    assert "needed by" in problem(await room.http.delete("/v1/images/win11/versions/1"), 409)["detail"]
    assert (await rebase(room, undo=True)).json()["version"] == 1
    assert await disk(room) == first
    assert (await rebase(room, undo=True)).json()["version"] == 2  # and that again
    assert await disk(room) == second


async def test_what_cannot_be_rebased_says_why(room: Registry) -> None:
    assert "no layer of its own" in problem(await rebase(room), 404)["detail"]
    await room.link("client", "pc-07", "win11", own_layer=True)
    assert "has not been rebased" in problem(await rebase(room, undo=True), 409)["detail"]
    assert "no version 9" in problem(await rebase(room, version=9), 404)["detail"]
    await room.link("client", "pc-07", "win11")
    assert "names no layer of its own" in problem(await rebase(room, version=2), 409)["detail"]


async def test_one_that_no_link_names_can_be_thrown_away(room: Registry) -> None:
    await room.link("client", "pc-07", "win11", own_layer=True)
    url = "/v1/clients/pc-07/own-layer?accept_loss=true"
    assert "names its own layer" in problem(await room.http.delete(url), 409)["detail"]
    await room.link("client", "pc-07", "other")
    assert (await room.http.delete(url)).status_code == 204
    assert problem(await room.http.get("/v1/clients/pc-07/own-layer"), 404)
    await room.link("client", "pc-07", "win11", version=2, own_layer=True)
    assert (await disk(room))["version"] == 2


async def test_a_client_with_a_layer_of_its_own_is_not_removed_with_it(room: Registry) -> None:
    await room.link("client", "pc-07", "win11", own_layer=True)
    before = await disk(room)
    told = problem(await room.http.delete("/v1/clients/pc-07"), 409)
    assert "has a layer of its own" in told["detail"]
    assert "bootlink link drop-own-layer pc-07" in told["remedy"]
    assert await disk(room) == before
    await room.link("client", "pc-07", "win11")
    assert (await room.http.delete("/v1/clients/pc-07/own-layer?accept_loss=true")).status_code == 204
    assert (await room.http.delete("/v1/clients/pc-07")).status_code == 204
