"""What each role may do, over every operation of the API; and that no operation is without a decision."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bootlink_registry.api.roles import OPERATION_ROLES
from bootlink_registry.tokens import ROLES
from lab.nats import NatsServer
from lab.registry import Registry, registry_on

METHODS = ("get", "put", "post", "patch", "delete")
# Whatever a parameter is, this is one, and names nothing that there is: a request that is let in changes nothing.
NOTHING = "00000000-0000-7000-8000-000000000000"
REFUSED = 403


@pytest.fixture
async def registry(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Registry]:
    async with registry_on(nats.url, database, tmp_path / "data") as running:
        yield running


def operations(document: Any) -> dict[str, tuple[str, str]]:
    """Method and path of each operation, by its name."""
    found = [
        (operation["operationId"], (method.upper(), path))
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]
    assert len(dict(found)) == len(found), "two functions that answer requests have one name"
    return dict(found)


def filled(path: str) -> str:
    """The path with NOTHING for each of its parameters."""
    return "/".join(NOTHING if part.startswith("{") else part for part in path.split("/"))


async def test_every_operation_has_a_role_and_every_role_an_operation(registry: Registry) -> None:
    there = operations(await registry.get("/openapi.json"))
    assert set(there) - set(OPERATION_ROLES) == set(), "decide who may: bootlink_registry/api/roles.py"
    assert set(OPERATION_ROLES) - set(there) == set(), "roles for what is no more"


async def test_reading_is_the_viewers_but_for_tokens_and_webhooks_and_changing_never(registry: Registry) -> None:
    for name, (method, path) in operations(await registry.get("/openapi.json")).items():
        if path.startswith(("/v1/tokens", "/v1/webhooks")):
            assert OPERATION_ROLES[name] == "admin", name
        elif method == "GET":
            assert OPERATION_ROLES[name] == "viewer", name
        else:
            assert OPERATION_ROLES[name] != "viewer", name


async def test_each_role_is_let_in_where_its_own_or_a_lesser_one_suffices_and_nowhere_else(registry: Registry) -> None:
    headers: dict[str, dict[str, str]] = {}
    for role in ROLES:
        made = await registry.http.post("/v1/tokens", json={"name": f"a-{role}", "role": role})
        headers[role] = {"Authorization": f"Bearer {made.json()['token']}"}
    wrong = []
    for name, (method, path) in operations(await registry.get("/openapi.json")).items():
        for role in ROLES:
            answer = await registry.http.request(method, filled(path), headers=headers[role])
            may = ROLES.index(role) >= ROLES.index(OPERATION_ROLES[name])
            if (answer.status_code == REFUSED) == may or answer.status_code >= 500:
                wrong.append((name, role, answer.status_code))
            if answer.status_code == REFUSED:
                assert f"--role {OPERATION_ROLES[name]}" in answer.json()["remedy"]
        nobody = await registry.http.request(method, filled(path), headers={"Authorization": ""})
        assert nobody.status_code in (401, 429), name
    assert wrong == []


async def test_a_refusal_comes_before_the_body_is_looked_at(registry: Registry) -> None:
    made = await registry.http.post("/v1/tokens", json={"name": "looker", "role": "viewer"})
    viewer = {"Authorization": f"Bearer {made.json()['token']}"}
    answer = await registry.http.post("/v1/images", headers=viewer, json={"name": 7})
    assert answer.status_code == REFUSED
