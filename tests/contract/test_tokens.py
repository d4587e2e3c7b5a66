"""Who may in: tokens made, used, expired and taken away; who fails, and who fails too often."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from bootlink_events import PREFIX, CloudEvent
from bootlink_registry.api.guard import ADDRESSES, FAILURE_SECONDS, FAILURES, Failures
from bootlink_registry.tokens import TOKEN_LENGTH_MIN, Tokens
from bootlink_runtime import StartupError, follow, logger
from lab.chassis import bus_on
from lab.nats import NatsServer
from lab.registry import TOKEN, Registry, raw_disk, registry_on, until

NOBODY = {"Authorization": ""}


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        yield running


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def made(registry: Registry, name: str, role: str, **more: Any) -> str:
    """A new token."""
    answer = await registry.http.post("/v1/tokens", json={"name": name, "role": role, **more})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/tokens/{name}"
    return str(answer.json()["token"])


async def test_without_a_token_nothing_is_told_not_even_which_paths_there_are(registry: Registry) -> None:
    for method, path in (("GET", "/v1/info"), ("GET", "/openapi.json"), ("GET", "/v1/no"), ("POST", "/v1/images")):
        answer = await registry.http.request(method, path, headers=NOBODY, content=b"{")
        assert answer.status_code == 401, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["www-authenticate"] == 'Bearer realm="bootlink"'
        assert "BOOTLINK_TOKEN" in answer.json()["remedy"]


async def test_what_is_no_token_of_ours_is_refused(registry: Registry) -> None:
    for given in ("Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer " + "x" * 1000, "Bearer \xe9"):
        headers = httpx.Headers([(b"Authorization", given.encode("latin-1"))])
        assert (await registry.http.get("/v1/info", headers=headers)).status_code == 401, given
    headers = httpx.Headers([("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer x")])
    async with httpx.AsyncClient(base_url=registry.http.base_url, headers=headers) as http:
        assert (await http.get("/v1/info")).status_code == 401


async def test_a_token_is_told_once_and_kept_as_its_hash_alone(registry: Registry, database: str) -> None:
    token = await made(registry, "anna", "operator", note="front desk")
    assert token.startswith("blt_")
    shown = await registry.get("/v1/tokens/anna")
    assert shown | {"created": ""} == {
        "name": "anna",
        "role": "operator",
        "note": "front desk",
        "created": "",
        "expires": None,
        "used": None,
    }
    assert (await registry.get("/v1/tokens"))["items"] == [shown]
    told = await registry.http.get("/v1/info", headers=bearer(token))
    assert told.json()["you"] == {"name": "anna", "role": "operator"}


async def test_a_token_that_was_taken_away_is_refused_at_once(registry: Registry) -> None:
    token = await made(registry, "anna", "viewer")
    assert (await registry.http.get("/v1/images", headers=bearer(token))).status_code == 200
    assert (await registry.http.delete("/v1/tokens/anna")).status_code == 204
    assert (await registry.http.get("/v1/images", headers=bearer(token))).status_code == 401
    assert (await registry.http.delete("/v1/tokens/anna")).status_code == 404


async def test_a_token_expires(registry: Registry) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=5)
    token = await made(registry, "anna", "viewer", expires=soon.isoformat())

    async def refused() -> bool:
        answer = await registry.http.get("/v1/images", headers=bearer(token))
        assert answer.status_code == (401 if datetime.now(UTC) >= soon + timedelta(seconds=0.5) else answer.status_code)
        return answer.status_code == 401

    assert not await refused()
    await until(refused, "the token to expire")
    for expires in ("2020-01-01T00:00:00Z", "2027-01-01T00:00:00", "soon"):
        body = {"name": "late", "role": "viewer", "expires": expires}
        assert (await registry.http.post("/v1/tokens", json=body)).status_code == 422


async def test_a_name_is_given_to_one_token_and_admin_to_none(registry: Registry) -> None:
    await made(registry, "anna", "viewer")
    for name in ("anna", "admin"):
        answer = await registry.http.post("/v1/tokens", json={"name": name, "role": "viewer"})
        assert answer.status_code == 409
        assert "another name" in answer.json()["remedy"]


async def test_tokens_go_on_working_at_another_registry_and_end_there_too(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootlink_registry.tokens.REFRESH_SECONDS", 0.1)
    async with (
        registry_on(nats.url, database, tmp_path / "one", node="one") as first,
        registry_on(nats.url, database, tmp_path / "two", node="two") as second,
    ):
        token = await made(first, "anna", "viewer")

        async def status() -> int:
            return (await second.http.get("/v1/images", headers=bearer(token))).status_code

        async def is_in() -> bool:
            return await status() == 200

        async def is_out() -> bool:
            return await status() == 401

        await until(is_in, "the token to be known at the other registry")
        await first.http.delete("/v1/tokens/anna")
        await until(is_out, "the token to be gone at the other registry")


async def test_when_a_token_was_used_is_told(
    nats: NatsServer, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bootlink_registry.tokens.REFRESH_SECONDS", 0.1)
    monkeypatch.setattr("bootlink_registry.tokens.USED_SECONDS", 0.1)
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        began = datetime.now(UTC)
        await registry.http.get("/v1/images", headers=bearer(await made(registry, "anna", "viewer")))

        async def told() -> bool:
            used = (await registry.get("/v1/tokens/anna"))["used"]
            return used is not None and datetime.fromisoformat(used) >= began

        await until(told, "the time of use")


async def test_who_fails_too_often_has_to_wait_and_who_has_a_token_has_not(registry: Registry) -> None:
    statuses = [(await registry.http.get("/v1/info", headers=bearer(f"guess-{n}"))).status_code for n in range(15)]
    assert statuses == [401] * FAILURES + [429] * (15 - FAILURES)
    last = await registry.http.get("/v1/info", headers=NOBODY)
    assert int(last.headers["retry-after"]) >= 1
    assert (await registry.http.get("/v1/info")).status_code == 200


def test_failures_are_forgiven_one_by_one_and_addresses_forgotten() -> None:
    now = [1000.0]
    failures = Failures(lambda: now[0])
    assert [failures.add("a") for _ in range(FAILURES)] == [0.0] * FAILURES
    assert [failures.add("a") for _ in range(3)] == [FAILURE_SECONDS] * 3  # no longer for trying
    assert failures.add("b") == 0
    now[0] += FAILURE_SECONDS
    assert failures.add("a") == 0
    assert failures.add("a") > 0
    for number in range(ADDRESSES):
        failures.add(f"address-{number}")
    assert failures.add("a") == 0


def test_an_administrators_token_that_is_too_short_or_too_long_ends_the_start() -> None:
    database: Any = None
    for text in ("x" * (TOKEN_LENGTH_MIN - 1), "x" * 257):
        with pytest.raises(StartupError, match="administrator's token"):
            Tokens(database, text, logger("test"))
    assert Tokens(database, "", logger("test")).identify("") is None


async def test_before_the_database_answers_a_token_of_its_own_is_neither_right_nor_wrong() -> None:
    database: Any = None
    tokens = Tokens(database, TOKEN, logger("test"))
    assert not tokens.loaded
    assert tokens.identify(TOKEN) is not None
    assert tokens.identify("blt_another") is None


async def test_a_token_that_is_made_or_taken_away_is_told_without_the_token(
    registry: Registry, nats: NatsServer
) -> None:
    token = await made(registry, "anna", "operator")
    assert (await registry.http.delete("/v1/tokens/anna")).status_code == 204
    async with bus_on(nats.url, make=False) as bus:
        found: list[CloudEvent] = []

        async def both() -> bool:
            subject = f"{PREFIX}.token.changed.anna"
            found[:] = [event async for event in follow(bus, subject=subject, since=None, wait=False)]
            return len(found) == 2

        await until(both, "both events")
    told = [(e.data["name"], e.data["role"], e.data["change"], e.data["author"]) for e in found]
    assert told == [("anna", "operator", "added", "admin"), ("anna", "operator", "removed", "admin")]
    assert not any(token in event.payload().decode() for event in found)


async def test_each_change_of_clients_groups_and_links_tells_whose_token_did_it(
    registry: Registry, nats: NatsServer, tmp_path: Path
) -> None:
    await registry.add_image("win11", raw_disk(tmp_path / "win11.img"))
    link = {"scope": "group", "name": "room-1", "image": "win11"}
    roster = "mac,name,image\n52:54:00:00:00:09,pc-09,win11\n"
    option = {"code": 42, "type": "address", "value": "10.0.0.1"}
    changes: list[tuple[str, str, Any]] = [
        ("POST", "/v1/clients", {"mac": "52:54:00:00:00:07", "name": "pc-07", "group": "room-1"}),
        ("PATCH", "/v1/clients/pc-07", {"note": "by the door"}),
        ("PUT", "/v1/links", link),
        ("PUT", "/v1/menus/group/room-1", {"entries": [{"name": "tools", "image": "win11"}]}),
        ("PUT", "/v1/links", {"scope": "client", "name": "pc-07", "image": "win11", "own_layer": True}),
        ("POST", "/v1/roster", {"format": "csv", "text": roster}),
        ("PUT", "/v1/groups/room-1/dhcp", {"options": [option]}),
        ("PATCH", "/v1/groups/room-1", {"name": "library"}),
        ("DELETE", "/v1/links/group/library", None),
        ("DELETE", "/v1/clients/pc-09", None),
    ]
    anna = bearer(await made(registry, "anna", "operator"))
    for method, path, body in changes:
        answer = await registry.http.request(method, path, json=body, headers=anna)
        assert answer.is_success, (method, path, answer.text)
    await registry.all_told()
    async with bus_on(nats.url, make=False) as bus:
        for what, least in (("client", 5), ("link", 6), ("group", 3)):
            subject = f"{PREFIX}.{what}.changed.>"
            authors = [event.data["author"] async for event in follow(bus, subject=subject, wait=False)]
            assert len(authors) >= least, what
            assert set(authors) == {"anna"}, what
