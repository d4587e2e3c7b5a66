"""The API's DHCP settings of groups: options and loader rules, in plans and in events, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_runtime import follow
from lab.chassis import bus_on, reader
from lab.nats import NatsServer
from lab.registry import Registry, problem, registry_on, until

MAC = "52:54:00:00:00:01"
NTP = {"code": 42, "type": "addresses", "value": "10.77.0.5,10.77.0.6"}
PROXY = {"code": 252, "type": "text", "value": "http://wpad/wpad.dat"}
SHIM = {"arch": "uefi-x64", "vendor_class": "", "model": "", "loaders": ["snponly-shimx64.efi", "snponly.efi"]}


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        await running.add_client(MAC, "pc-1", group="room-1")
        yield running


async def put(registry: Registry, group: str, **body: Any) -> Any:
    answer = await registry.http.put(f"/v1/groups/{group}/dhcp", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_options_and_loaders_reach_the_plans_of_the_group_and_are_told(
    registry: Registry, nats: NatsServer, tmp_path: Path
) -> None:
    done = await put(registry, "room-1", options=[PROXY, NTP], loaders=[SHIM])
    assert done == {"group": "room-1", "options": [NTP, PROXY], "loaders": [SHIM]}
    assert await registry.get("/v1/groups/room-1/dhcp") == done
    await put(registry, "room-1", options=[NTP, PROXY], loaders=[SHIM])  # as it is already: told to nobody

    async with reader(nats.url, tmp_path) as (_, book):

        async def planned() -> bool:
            plan = book.get(MAC)
            return plan is not None and [o.code for o in plan.options] == [42, 252] and len(plan.loaders) == 1

        await until(planned, "the settings in the plan")
        renamed = await registry.http.patch("/v1/groups/room-1", json={"name": "library"})
        assert renamed.status_code == 200, renamed.text
        await until(planned, "the settings in the plan of the renamed group")
        plan = book.get(MAC)
        assert plan is not None
        assert plan.options[0].model_dump() == NTP
        assert plan.loaders[0].loaders == tuple(SHIM["loaders"])
    await put(registry, "library")
    async with bus_on(nats.url, make=False) as bus:
        await registry.all_told()
        events = [event.data async for event in follow(bus, subject="bootlink.v1.group.changed.>", wait=False)]
    assert [(e["group"], len(e["options"]), len(e["loaders"])) for e in events] == [
        ("room-1", 2, 1),
        ("room-1", 0, 0),
        ("library", 2, 1),
        ("library", 0, 0),
    ]


async def test_a_group_stays_for_as_long_as_it_has_settings(registry: Registry) -> None:
    problem(await registry.http.get("/v1/groups/later/dhcp"), 404)
    problem(await registry.http.put("/v1/groups/later/dhcp", json={"options": [NTP]}), 404)
    await put(registry, "room-1", options=[NTP])
    assert (await registry.http.delete("/v1/clients/pc-1")).status_code == 204
    assert [group["name"] for group in (await registry.get("/v1/groups"))["items"]] == ["room-1"]
    await put(registry, "room-1")
    problem(await registry.http.get("/v1/groups/room-1"), 404)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"options": [NTP, NTP]}, 409, "option 42 is there twice"),
        ({"options": [NTP | {"value": "10.77.0"}]}, 422, "option 42: "),
        ({"options": [NTP | {"code": 67}]}, 422, "option 67 is set by Bootlink itself"),
        ({"options": [NTP | {"type": "number"}]}, 422, ""),
        ({"options": [NTP | {"type": "text"}]}, 422, "option 42: it holds addresses, not text"),
        ({"options": [{"code": c, "type": "text", "value": "x" * 100} for c in (200, 201, 202)]}, 422, "at most 256"),
        ({"loaders": [SHIM | {"loaders": ["../etc/passwd"]}]}, 422, ""),
        ({"loaders": [SHIM | {"loaders": []}]}, 422, ""),
        ({"loaders": [SHIM | {"model": "52:5"}]}, 422, ""),
        ({"loaders": [SHIM | {"arch": "pdp11"}]}, 422, "there is no architecture pdp11"),
    ],
)
async def test_what_cannot_be_sent_is_refused(registry: Registry, body: Any, status: int, words: str) -> None:
    answer = problem(await registry.http.put("/v1/groups/room-1/dhcp", json=body), status)
    assert words in answer["detail"]
    assert (await registry.get("/v1/groups/room-1/dhcp"))["options"] == []
