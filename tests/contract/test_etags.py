"""Two administrators change one thing: the second is told, and changes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bootlink_registry.api.etags import matches
from lab.nats import NatsServer
from lab.registry import Registry, raw_disk, registry_on

MAC = "52:54:00:12:34:56"


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        await running.add_image("demo", raw_disk(tmp_path / "demo.img"))
        await running.add_client(MAC, "pc-07")
        await running.add_client("52:54:00:12:34:57", "pc-08")
        await running.add_client("52:54:00:12:34:58", "pc-09", group="room-1")
        yield running


def test_an_etag_is_named_by_itself_among_others_or_by_a_star() -> None:
    assert matches('"a"', '"a"')
    assert matches('"b", "a"', '"a"')
    assert matches(" * ", '"a"')
    for other in ('"b"', 'W/"a"', "a", "", '"a', '"*"'):
        assert not matches(other, '"a"'), other


async def etag(registry: Registry, path: str) -> str:
    answer = await registry.http.get(path)
    assert answer.status_code == 200, answer.text
    tag = answer.headers["etag"]
    assert tag[0] == tag[-1] == '"'
    return str(tag)


async def changed(registry: Registry, method: str, path: str, tag: str, body: Any = None) -> httpx.Response:
    return await registry.http.request(method, path, json=body, headers={"If-Match": tag})


LINK = {"scope": "client", "name": "pc-07", "image": "demo"}
MENU = {"entries": [{"name": "again", "image": "demo"}]}
# Of each kind: what is read, and two changes of it, each a method, a path and a body.
KINDS: dict[str, tuple[str, tuple[str, str, Any], tuple[str, str, Any]]] = {
    "client": (
        "/v1/clients/pc-07",
        ("PATCH", "/v1/clients/pc-07", {"group": "a"}),
        ("PATCH", f"/v1/clients/{MAC}", {"group": "b"}),
    ),
    "client removed": (
        "/v1/clients/pc-07",
        ("PATCH", "/v1/clients/pc-07", {"disabled": True}),
        ("DELETE", "/v1/clients/pc-07", None),
    ),
    "link": (
        "/v1/links/client/pc-07",
        ("PUT", "/v1/links", LINK | {"policy": "keep"}),
        ("PUT", "/v1/links", LINK | {"version": 1}),
    ),
    "link removed": (
        "/v1/links/client/pc-07",
        ("PUT", "/v1/links", LINK | {"policy": "keep"}),
        ("DELETE", "/v1/links/client/pc-07", None),
    ),
    "menu": (
        "/v1/menus/client/pc-07",
        ("PUT", "/v1/menus/client/pc-07", MENU | {"seconds": 3}),
        ("DELETE", "/v1/menus/client/pc-07", None),
    ),
    "group": (
        "/v1/groups/room-1",
        ("POST", "/v1/groups/room-1/clients", {"clients": ["pc-08"]}),
        ("PATCH", "/v1/groups/room-1", {"name": "room-2"}),
    ),
    "enrolment": (
        "/v1/enrolment",
        ("PATCH", "/v1/enrolment", {"policy": "refuse"}),
        ("PATCH", "/v1/enrolment", {"group": "newcomers"}),
    ),
    "image": (
        "/v1/images/demo",
        ("PATCH", "/v1/images/demo", {"note": "a"}),
        ("PATCH", "/v1/images/demo", {"note": "b"}),
    ),
    "channel": (
        "/v1/images/demo",
        ("PUT", "/v1/images/demo/channels/test", {"version": 1}),
        ("DELETE", "/v1/images/demo/channels/test", None),
    ),
    "version": (
        "/v1/images/demo/versions/1",
        ("PATCH", "/v1/images/demo/versions/1", {"note": "a"}),
        ("PATCH", "/v1/images/demo/versions/1", {"note": "b"}),
    ),
}


def without_plan(shown: Any) -> Any:
    """What somebody has set. A client's plan moves by itself: it is compiled, and it arrives."""
    return {name: value for name, value in shown.items() if name != "plan"} if isinstance(shown, dict) else shown


async def test_what_was_changed_in_between_is_not_changed_by_who_has_not_seen_it(registry: Registry) -> None:
    for kind, (read, first, second) in KINDS.items():
        await registry.link("client", MAC, "demo", policy="discard")
        await registry.http.put("/v1/menus/client/pc-07", json=MENU)
        tag = await etag(registry, read)
        assert (await changed(registry, first[0], first[1], tag, first[2])).is_success, kind
        between = without_plan(await registry.get(read))
        late = await changed(registry, second[0], second[1], tag, second[2])
        assert late.status_code == 412, (kind, late.text)
        assert "ETag" in late.json()["remedy"]
        assert without_plan(await registry.get(read)) == between, kind
        now = await etag(registry, read)
        assert now != tag, kind
        assert (await changed(registry, second[0], second[1], now, second[2])).is_success, kind
        if kind == "client removed":
            await registry.add_client(MAC, "pc-07")


async def test_the_answer_of_a_change_has_the_etag_that_the_next_one_needs(registry: Registry) -> None:
    tag = await etag(registry, "/v1/clients/pc-07")
    for group in ("a", "b", "c"):
        answer = await changed(registry, "PATCH", "/v1/clients/pc-07", tag, {"group": group})
        assert answer.status_code == 200
        tag = answer.headers["etag"]
    assert tag == await etag(registry, "/v1/clients/pc-07")


async def test_if_match_names_nothing_where_there_is_nothing(registry: Registry) -> None:
    assert (await changed(registry, "PUT", "/v1/links", "*", LINK)).status_code == 412
    assert (await registry.http.get("/v1/links/client/pc-07")).status_code == 404
    assert (await registry.http.put("/v1/links", json=LINK)).status_code == 200
    assert (await changed(registry, "PUT", "/v1/links", "*", LINK)).status_code == 200


async def test_of_many_changes_at_once_from_one_state_one_is_made(registry: Registry) -> None:
    tag = await etag(registry, "/v1/clients/pc-07")
    answers = await asyncio.gather(
        *(changed(registry, "PATCH", "/v1/clients/pc-07", tag, {"group": f"g{number}"}) for number in range(8))
    )
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 7
    (made,) = (answer.json()["group"] for answer in answers if answer.status_code == 200)
    assert (await registry.get("/v1/clients/pc-07"))["group"] == made
