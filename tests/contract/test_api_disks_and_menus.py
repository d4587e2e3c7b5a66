"""The API's disks and boot menus: a link for each disk of a client, and what a PC may choose from."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from lab.nats import NatsServer
from lab.registry import Registry, problem, raw_disk, registry_on

MAC = "52:54:00:12:34:56"
LINUX = {
    "name": "linux",
    "title": "Ubuntu 24.04",
    "image": "ubuntu",
    "channel": None,
    "version": 1,
    "policy": "keep",
} | {"start": None}
RESCUE = {"name": "rescue", "title": "", "image": "tools", "channel": "production", "version": None, "start": None}


@pytest.fixture
async def room(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    """A registry with a client, three images and a default link."""
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        for name in ("win11", "ubuntu", "tools"):
            await running.add_image(name, raw_disk(tmp_path / f"{name}.img"))
        await running.add_client(MAC, "pc-07", group="room-1")
        await running.link("default", "", "win11", chap="one-way")
        yield running


async def disks(room: Registry) -> list[Any]:
    """The disks of pc-07, each as LUN, whose link, and image."""
    client = await room.get("/v1/clients/pc-07")
    assert [disk["lun"] for disk in client["plan"]["disks"]] == [disk["lun"] for disk in client["disks"]]
    return [(disk["lun"], disk["scope"], disk["image"]) for disk in client["disks"]]


async def test_each_disk_of_a_client_has_a_link_of_its_own(room: Registry) -> None:
    await room.link("default", "", "tools", lun=1)
    assert await disks(room) == [(0, "default", "win11"), (1, "default", "tools")]
    await room.link("client", "pc-07", "ubuntu")
    assert await disks(room) == [(0, "client", "ubuntu"), (1, "default", "tools")]
    await room.link("group", "room-1", "win11", lun=1, policy="keep")
    assert await disks(room) == [(0, "client", "ubuntu"), (1, "group", "win11")]
    assert (await room.get("/v1/links/group/room-1", lun=1))["policy"] == "keep"
    problem(await room.http.get("/v1/links/group/room-1"), 404)
    listed: list[Any] = []
    after: str | None = ""
    while after is not None:
        page = await room.get("/v1/links", limit=1, after=after)
        listed += page["items"]
        after = page["next"]
    assert [(link["scope"], link["name"], link["lun"]) for link in listed] == [
        ("client", "pc-07", 0),
        ("default", "", 0),
        ("default", "", 1),
        ("group", "room-1", 1),
    ]
    assert (await room.http.delete("/v1/links/group/room-1?lun=1")).status_code == 204
    assert (await room.http.delete("/v1/links/client/pc-07")).status_code == 204
    assert await disks(room) == [(0, "default", "win11"), (1, "default", "tools")]
    told = problem(await room.http.delete("/v1/links/client/pc-07?lun=3"), 404)
    assert "no link of its own for LUN 3" in told["detail"]


async def test_one_client_can_be_without_a_disk_that_everybody_else_has(room: Registry) -> None:
    await room.link("default", "", "tools", lun=1)
    none: dict[str, Any] = {"scope": "client", "name": "pc-07", "lun": 1, "start": {"mode": "none"}}
    answer = await room.http.put("/v1/links", json=none)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["image"], answer.json()["start"]["mode"]) == (None, "none")
    assert await disks(room) == [(0, "default", "win11")]
    wrong = problem(await room.http.put("/v1/links", json=none | {"lun": 0}), 422)
    assert "further disk" in wrong["detail"]
    problem(await room.http.put("/v1/links", json=none | {"image": "tools"}), 422)
    problem(await room.http.put("/v1/links", json=none | {"start": {"mode": "none", "keep_san": True}}), 422)
    offered = {"entries": [{"name": "nothing", "start": {"mode": "none"}}]}
    problem(await room.http.put("/v1/menus/default", json=offered), 422)
    exported = (await room.http.get("/v1/roster", params={"format": "csv"})).text
    assert exported.splitlines()[1].endswith(",1=none")
    assert (await room.http.delete("/v1/links/client/pc-07?lun=1")).status_code == 204
    assert await disks(room) == [(0, "default", "win11"), (1, "default", "tools")]
    taken = await room.http.post("/v1/roster", json={"format": "csv", "text": exported})
    assert taken.json()["changed"] == 1, taken.text
    assert await disks(room) == [(0, "default", "win11")]


async def test_a_further_disk_asks_for_no_secret_of_its_own_and_its_number_has_a_limit(room: Registry) -> None:
    body: dict[str, Any] = {"scope": "default", "image": "tools", "lun": 1, "chap": "mutual"}
    assert "LUN 0" in problem(await room.http.put("/v1/links", json=body), 422)["remedy"]
    for lun in (-1, 255, "a"):
        problem(await room.http.put("/v1/links", json=body | {"lun": lun, "chap": "off"}), 422)
        problem(await room.http.get(f"/v1/links/default?lun={lun}"), 422)
    for after in ("x", "default//999999999999999999", "default/\u2126/\u0663", "a/b/c/d"):
        assert (await room.http.get("/v1/links", params={"after": after})).status_code == 200


async def test_a_menu_is_set_shown_and_taken_away_and_is_part_of_the_plan(room: Registry) -> None:
    menu = {
        "title": "Windows 11",
        "seconds": 20,
        "default": "linux",
        "entries": [LINUX, RESCUE | {"policy": "discard"}],
    }
    answer = await room.http.put("/v1/menus/default", json=menu)
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"scope": "default", "name": ""} | menu
    assert await room.get("/v1/menus/default") == answer.json()
    plan = (await room.get("/v1/clients/pc-07"))["plan"]["menu"]
    assert [(entry["name"], entry["title"]) for entry in plan["entries"]] == [
        ("link", "Windows 11"),
        ("linux", "Ubuntu 24.04"),
        ("rescue", "tools"),
    ]
    assert (plan["default"], plan["seconds"]) == ("linux", 20)
    # Another image on the link leaves its menu; a link of the client's own has none.
    await room.link("default", "", "ubuntu")
    assert await room.get("/v1/menus/default") == answer.json()
    await room.link("client", "pc-07", "win11")
    assert (await room.get("/v1/clients/pc-07"))["plan"]["menu"] is None
    assert (await room.http.delete("/v1/links/client/pc-07")).status_code == 204
    assert (await room.http.delete("/v1/menus/default")).status_code == 204
    assert (await room.get("/v1/clients/pc-07"))["plan"]["menu"] is None
    assert "has no boot menu" in problem(await room.http.delete("/v1/menus/default"), 404)["detail"]
    assert (await room.get("/v1/links/default"))["image"] == "ubuntu"


NONSENSE: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"entries": []}, 422, "entries"),
    ({"entries": [LINUX, LINUX]}, 409, "two entries have the name 'linux'"),
    ({"entries": [LINUX | {"name": "link"}]}, 409, "the entry of the link itself"),
    ({"default": "gone"}, 422, "the default 'gone' is no entry of the menu; there are: link, linux"),
    ({"entries": [LINUX | {"image": "gone"}], "default": "link"}, 404, "no image 'gone'"),
    ({"entries": [LINUX | {"version": 9}]}, 404, "no version 9"),
    ({"entries": [LINUX | {"channel": "test"}]}, 422, "a channel and a version"),
    ({"entries": [LINUX | {"title": "Zürich"}]}, 422, "cannot be shown by iPXE"),
    ({"entries": [LINUX | {"title": "${net0/mac} && shell"}]}, 422, "cannot be shown by iPXE"),
    ({"entries": [LINUX | {"title": "x" * 61}]}, 422, "longer than 60 characters"),
    ({"entries": [LINUX | {"name": f"e{n}"} for n in range(16)], "default": "link"}, 422, "entries"),
    ({"seconds": -1}, 422, "seconds"),
    ({"seconds": 3601}, 422, "seconds"),
)


async def test_a_menu_that_makes_no_sense_is_refused_and_the_former_one_stays(room: Registry) -> None:
    answer = await room.http.put("/v1/menus/default", json={"entries": [RESCUE]})
    before = answer.json()
    for change, status, told in NONSENSE:
        menu = {"entries": [LINUX], "default": "linux"} | change
        assert told in problem(await room.http.put("/v1/menus/default", json=menu), status)["detail"], change
    assert await room.get("/v1/menus/default") == before


async def test_a_menu_belongs_to_a_link_that_is_there(room: Registry) -> None:
    told = problem(await room.http.put("/v1/menus/client/pc-07", json={"entries": [LINUX]}), 404)
    assert "has no link of its own" in told["detail"]
    assert (
        "no client 'pc-9'"
        in problem(await room.http.put("/v1/menus/client/pc-9", json={"entries": [LINUX]}), 404)["detail"]
    )
