"""The API as its callers may rely on it: what it takes, what it answers, and how it says no."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_disks import create_vhd_differencing, create_vhd_dynamic
from lab.disks import qemu_img
from lab.nats import NatsServer
from lab.registry import DISK_SIZE, Registry, problem, raw_disk, registry_on

MAC = "52:54:00:12:34:56"


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        yield running


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return raw_disk(tmp_path / "demo.img")


# -- images ---------------------------------------------------------------------------------------------------------


async def test_an_image_is_added_in_place_as_version_1_of_channel_production(registry: Registry, disk: Path) -> None:
    before = (disk.read_bytes(), disk.stat().st_mtime_ns)
    answer = await registry.http.post("/v1/images", json={"name": "demo", "path": str(disk), "note": "first"})
    assert answer.status_code == 201
    assert answer.headers["location"] == "/v1/images/demo"
    image = answer.json()
    assert image["channels"] == {"production": 1}
    (version,) = image["versions"]
    assert version["number"] == 1
    assert version["path"] == str(disk)
    assert (version["format"], version["virtual_size"], version["fault"]) == ("raw", DISK_SIZE, None)
    assert await registry.get("/v1/images/demo") == image
    assert (await registry.get("/v1/images"))["items"] == [image]
    assert (disk.read_bytes(), disk.stat().st_mtime_ns) == before


async def test_an_image_is_added_from_a_vhdx_as_from_any_other_disk(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "demo.vhdx"
    qemu_img("create", "-f", "vhdx", path, "64M")
    answer = await registry.http.post("/v1/images", json={"name": "demo", "path": str(path)})
    assert answer.status_code == 201
    (version,) = answer.json()["versions"]
    assert (version["format"], version["virtual_size"]) == ("vhdx", 64 << 20)


async def test_a_differencing_disk_is_no_image_by_itself_and_says_what_to_do(
    registry: Registry, disk: Path, tmp_path: Path
) -> None:
    parent = create_vhd_dynamic(tmp_path / "gold.vhd", disk)
    child = create_vhd_differencing(tmp_path / "child.vhd", parent, [(0, b"x" * 512)])
    told = problem(await registry.http.post("/v1/images", json={"name": "demo", "path": str(child.path)}), 422)
    assert "differencing disk on “gold.vhd”" in told["detail"]
    assert "merge both" in told["remedy"]
    assert "--parent" in told["remedy"]
    problem(await registry.http.get("/v1/images/demo"), 404)


async def test_an_image_name_is_taken_once(registry: Registry, disk: Path) -> None:
    await registry.add_image("demo", disk)
    problem(await registry.http.post("/v1/images", json={"name": "demo", "path": str(disk)}), 409)


async def test_a_file_that_is_no_disk_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no disk\n" * 100)
    told = problem(await registry.http.post("/v1/images", json={"name": "demo", "path": str(text)}), 422)
    assert str(text) in told["detail"]
    problem(await registry.http.get("/v1/images/demo"), 404)
    assert (await registry.get("/v1/info"))["counts"]["unpublished_events"] == 0


async def test_a_file_that_is_not_there_is_told_by_its_path(registry: Registry, tmp_path: Path) -> None:
    missing = tmp_path / "gone.vhd"
    told = problem(await registry.http.post("/v1/images", json={"name": "demo", "path": str(missing)}), 422)
    assert str(missing) in told["detail"]


async def test_a_pipe_is_no_image_and_keeps_nobody_waiting(registry: Registry, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.img"
    os.mkfifo(pipe)
    problem(await registry.http.post("/v1/images", json={"name": "demo", "path": str(pipe)}), 422)


async def test_an_image_path_must_be_absolute(registry: Registry) -> None:
    for path in ("demo.img", "", "./demo.img", "/tmp/a\0b"):
        problem(await registry.http.post("/v1/images", json={"name": "demo", "path": path}), 422)


async def test_a_name_that_is_none_is_refused(registry: Registry, disk: Path) -> None:
    for name in ("", "Demo", "a b", "-a", "a.", "a:b", "a/b", "ä", "a\n", "x" * 64, "525400123456"):
        problem(await registry.http.post("/v1/images", json={"name": name, "path": str(disk)}), 422)
        problem(await registry.http.post("/v1/clients", json={"mac": MAC, "name": name}), 422)


async def test_a_field_that_nobody_knows_is_a_mistake_worth_telling(registry: Registry, disk: Path) -> None:
    told = problem(await registry.http.post("/v1/images", json={"name": "a", "path": str(disk), "nmae": "b"}), 422)
    assert "nmae" in told["detail"]


# -- clients --------------------------------------------------------------------------------------------------------


async def test_a_client_is_found_by_name_and_by_any_form_of_its_mac(registry: Registry) -> None:
    answer = await registry.http.post(
        "/v1/clients", json={"mac": "5254.0012.3456", "name": "pc-07", "group": "teachers", "address": "10.77.0.9"}
    )
    assert answer.status_code == 201
    client = answer.json()
    assert (client["mac"], client["name"], client["group"]) == (MAC, "pc-07", "teachers")
    assert client["address"] == "10.77.0.9"
    for key in ("pc-07", MAC, "52-54-00-12-34-56", "525400123456"):
        assert (await registry.get(f"/v1/clients/{key}"))["name"] == "pc-07"


async def test_a_client_shows_its_link_its_plan_and_why_it_cannot_boot(registry: Registry, disk: Path) -> None:
    await registry.add_client(MAC, "pc-07", group="room-1")
    bare = await registry.get("/v1/clients/pc-07")
    assert bare["link"] is None
    assert bare["last_boot"] is None
    assert bare["plan"]["target"] == "iqn.2026-11.io.bootlink:52-54-00-12-34-56"
    assert bare["plan"]["refusal"]["cause"] == "no_link"
    assert "link set" in bare["plan"]["refusal"]["remedy"]
    await registry.add_image("demo", disk)
    await registry.link("group", "room-1", "demo", policy="keep")
    linked = await registry.get("/v1/clients/pc-07")
    assert linked["link"] == {
        "lun": 0,
        "scope": "group",
        "image": "demo",
        "channel": "production",
        "version": 1,
        "policy": "keep",
        "chap": "off",
        "own_layer": False,
        "start": None,
    }
    assert linked["plan"]["refusal"]["cause"] == "no_blockstore"
    assert linked["plan"]["disks"][0]["layers"][0]["path"] == str(disk)


async def test_a_client_without_a_name_gets_the_next_free_one(registry: Registry) -> None:
    await registry.add_client("52:54:00:00:00:01", "pc-001")
    answer = await registry.http.post("/v1/clients", json={"mac": MAC})
    assert answer.json()["name"] == "pc-002"


async def test_mac_name_and_address_belong_to_one_client(registry: Registry) -> None:
    await registry.add_client(MAC, "pc-07", address="10.77.0.9")
    other = "52:54:00:00:00:02"
    for body in (
        {"mac": MAC, "name": "pc-08"},
        {"mac": other, "name": "pc-07"},
        {"mac": other, "name": "pc-08", "address": "10.77.0.9"},
    ):
        problem(await registry.http.post("/v1/clients", json=body), 409)
    await registry.add_client(other, "pc-08")
    told = problem(await registry.http.patch("/v1/clients/pc-08", json={"name": "pc-07"}), 409)
    assert told["detail"] == f"{MAC} is called pc-07 already"


async def test_what_is_no_mac_address_is_refused(registry: Registry) -> None:
    for mac in ("", "pc-07", "52:54:00:12:34", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"):
        problem(await registry.http.post("/v1/clients", json={"mac": mac, "name": "pc-07"}), 422)


async def test_a_client_is_renamed_moved_and_switched_off(registry: Registry) -> None:
    await registry.add_client(MAC, "pc-07", group="a", address="10.77.0.9")
    changed = await registry.http.patch("/v1/clients/pc-07", json={"name": "front-desk", "group": "b"})
    assert changed.status_code == 200
    assert changed.json()["address"] == "10.77.0.9"
    changed = await registry.http.patch("/v1/clients/front-desk", json={"address": None, "disabled": True})
    assert changed.json() | {"created": ""} == {
        "mac": MAC,
        "name": "front-desk",
        "group": "b",
        "address": None,
        "disabled": True,
        "note": "",
        "enrolled": False,
        "created": "",
    }
    assert (await registry.get(f"/v1/clients/{MAC}"))["plan"]["refusal"]["cause"] == "disabled"
    problem(await registry.http.patch("/v1/clients/front-desk", json={}), 422)
    problem(await registry.http.patch("/v1/clients/nobody", json={"disabled": True}), 404)


async def test_listings_come_in_pages(registry: Registry) -> None:
    for number in range(5):
        await registry.add_client(f"52:54:00:00:00:0{number}", f"pc-{number}", group="odd" if number % 2 else "even")
    names: list[str] = []
    page: dict[str, Any] = {"next": ""}
    while page["next"] is not None:
        page = await registry.get("/v1/clients", limit=2, after=page["next"])
        names += [item["name"] for item in page["items"]]
    assert names == [f"pc-{number}" for number in range(5)]
    odd = await registry.get("/v1/clients", group="odd")
    assert [item["name"] for item in odd["items"]] == ["pc-1", "pc-3"]
    problem(await registry.http.get("/v1/clients", params={"limit": 100_000}), 422)


# -- links ----------------------------------------------------------------------------------------------------------


async def test_a_link_to_an_unknown_image_names_the_images_there_are(registry: Registry, disk: Path) -> None:
    told = problem(await registry.http.put("/v1/links", json={"scope": "default", "image": "win11"}), 404)
    assert "none yet" in told["detail"]
    for number in range(12):
        await registry.add_image(f"demo-{number:02}", disk)
    told = problem(await registry.http.put("/v1/links", json={"scope": "default", "image": "win11"}), 404)
    assert "demo-00, demo-01" in told["detail"]
    assert "and 2 more" in told["detail"]
    assert len(told["images"]) == 10


async def test_a_link_to_an_unknown_client_channel_or_version_says_what_to_do(registry: Registry, disk: Path) -> None:
    await registry.add_image("demo", disk)
    body = {"scope": "client", "name": "pc-07", "image": "demo"}
    assert "client list" in problem(await registry.http.put("/v1/links", json=body), 404)["remedy"]
    told = problem(await registry.http.put("/v1/links", json=body | {"name": MAC}), 404)
    assert f"client add {MAC}" in told["remedy"]
    for more in ({"channel": "test"}, {"version": 2}):
        told = problem(await registry.http.put("/v1/links", json={"scope": "default", "image": "demo", **more}), 404)
        assert "there are:" in told["detail"]


NONSENSE: list[Any] = [
    {"scope": "room", "name": "a", "image": "demo"},
    {"scope": "client", "image": "demo"},
    {"scope": "default", "name": "pc-07", "image": "demo"},
    {"scope": "group", "name": "Room 1", "image": "demo"},
    {"scope": "default", "image": "demo", "policy": "forever"},
    {"scope": "default", "image": "demo", "channel": "production", "version": 1},
    {"scope": "default", "image": "demo", "version": 0},
    {"scope": "default"},
    [],
    "demo",
]


async def test_a_link_that_makes_no_sense_is_refused(registry: Registry, disk: Path) -> None:
    await registry.add_image("demo", disk)
    for body in NONSENSE:
        problem(await registry.http.put("/v1/links", json=body), 422)


async def test_links_are_set_shown_listed_and_taken_away(registry: Registry, disk: Path) -> None:
    await registry.add_image("demo", disk)
    await registry.add_client(MAC, "pc-07")
    own = await registry.link("client", MAC, "demo", version=1, policy="keep")
    assert (own["name"], own["channel"], own["version"]) == ("pc-07", None, 1)
    everybody = await registry.link("default", "", "demo")
    assert (everybody["channel"], everybody["version"]) == ("production", None)
    group = await registry.link("group", "teachers", "demo")
    assert await registry.get("/v1/links/client/pc-07") == own
    assert await registry.get("/v1/links/group/teachers") == group
    assert await registry.get("/v1/links/default") == everybody
    assert (await registry.get("/v1/links"))["items"] == [own, everybody, group]
    for path in ("/v1/links/client/pc-07", "/v1/links/group/teachers", "/v1/links/default"):
        assert (await registry.http.delete(path)).status_code == 204
        problem(await registry.http.get(path), 404)
        problem(await registry.http.delete(path), 404)
    assert (await registry.get("/v1/links"))["items"] == []


# -- boots, and the whole -------------------------------------------------------------------------------------------


async def test_boots_that_are_not_there_are_told(registry: Registry) -> None:
    assert await registry.get("/v1/boots") == {"items": [], "next": None}
    problem(await registry.http.get("/v1/boots/0199f7b4-0000-7000-8000-000000000000"), 404)
    problem(await registry.http.get("/v1/boots/latest"), 422)
    problem(await registry.http.get("/v1/boots", params={"client": "nobody"}), 404)
    assert (await registry.get("/v1/boots", client=MAC))["items"] == []


async def test_every_error_is_a_problem_document(registry: Registry) -> None:
    problem(await registry.http.get("/v1/nothing"), 404)
    problem(await registry.http.delete("/v1/images"), 405)
    problem(await registry.http.get("/v1/images/%00"), 422)
    problem(await registry.http.get("/v1/clients/..%2f..%2fetc"), 404)
    problem(await registry.http.get("/v1/links/room/a"), 422)


async def test_a_body_that_is_no_json_is_refused(registry: Registry) -> None:
    headers = {"content-type": "application/json"}
    problem(await registry.http.put("/v1/links", content=b'{"scope":', headers=headers), 422)


async def test_info_tells_what_there_is(registry: Registry, disk: Path) -> None:
    await registry.add_image("demo", disk)
    info = await registry.get("/v1/info")
    assert info["counts"]["images"] == 1
    assert info["nats_connected"] is True
    assert info["enrol"] == "accept"
    assert info["nodes"] == []


# -- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_long_is_refused_and_not_held(registry: Registry, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(16):
            yield b"a" * 8192

    content: Any = pieces() if chunked else b"a" * (16 * 8192)
    answer = await registry.http.post("/v1/images", content=content, headers={"content-type": "application/json"})
    assert "65536 bytes" in problem(answer, 413)["detail"]
    assert (await registry.http.get("/v1/images")).status_code == 200


async def test_a_body_sent_as_a_form_is_told_the_header_that_is_missing(registry: Registry) -> None:
    """What `curl -d` sends unless it is told."""
    answer = await registry.http.post(
        "/v1/images",
        content=b'{"name": "demo", "path": "/x"}',
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert "Content-Type: application/json" in problem(answer, 415)["remedy"]


async def test_broken_json_is_told_with_its_place(registry: Registry) -> None:
    answer = await registry.http.post("/v1/images", content=b'{"name":', headers={"content-type": "application/json"})
    assert problem(answer, 422)["detail"] == "the body is no JSON: Expecting value (character 8)"


async def test_a_missing_field_is_told_by_its_name_even_if_that_is_path(registry: Registry) -> None:
    answer = await registry.http.post("/v1/images", json={"name": "demo"})
    assert problem(answer, 422)["detail"] == "path: Field required"


@pytest.mark.parametrize("address", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255"])
async def test_an_address_that_no_pc_can_have_is_not_reserved(registry: Registry, address: str) -> None:
    answer = await registry.http.post("/v1/clients", json={"mac": MAC, "address": address})
    assert "no address that a PC can have" in problem(answer, 422)["detail"]


async def test_a_method_that_there_is_not_is_told_those_that_there_are(registry: Registry) -> None:
    for path, methods in (("/v1/clients", "GET, POST"), ("/v1/clients/pc-07", "DELETE, GET, PATCH")):
        answer = await registry.http.put(path, json={})
        problem(answer, 405)
        assert answer.headers["allow"] == methods


async def test_a_body_that_is_no_text_is_no_json(registry: Registry) -> None:
    answer = await registry.http.put("/v1/links", content=b"\xff{", headers={"content-type": "application/json"})
    assert "UTF-8" in problem(answer, 422)["detail"]


async def test_an_export_to_a_name_too_long_for_the_file_system_is_refused(registry: Registry, disk: Path) -> None:
    await registry.add_image("demo", disk)
    told = problem(
        await registry.http.post("/v1/images/demo/export", json={"path": "/" + "a" * 300, "format": "raw"}), 422
    )
    assert "name" in told["remedy"]
