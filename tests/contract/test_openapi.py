"""The OpenAPI document: complete, and decided in every respect. That it is true is schemathesis's to say."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.nats import NatsServer
from lab.registry import Registry, registry_on

METHODS = ("get", "put", "post", "patch", "delete")

# Operations that change something and need no If-Match, and why.
NO_LOST_UPDATE: dict[str, str] = {
    "drop_own_layer": "thrown away whole, and only with `accept_loss` where it holds something",
    "leave_node": "only while that block store is silent; who finds it moved already is told so",
    "throw_away": "what one boot wrote; it is thrown away whole or not at all",
    "forget_sighting": "nobody changes one; the PC comes back by itself when it asks again",
}

# Operations that answer with a file, and what it may be.
FILES = {"export_roster": {"text/csv", "application/yaml"}}


@pytest.fixture
async def document(nats: NatsServer, database: str, tmp_path: Path) -> AsyncIterator[Any]:
    async with registry_on(nats.url, database, tmp_path / "data") as registry:
        yield await Registry.get(registry, "/openapi.json")


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Method, path and operation of each."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield method, path, operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


async def test_the_document_is_complete(document: Any) -> None:
    assert document["security"] == [{"token": []}]
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"], reference
    for method, path, operation in operations(document):
        name = operation["operationId"]
        assert operation["description"], f"{name} says nothing of what it does"
        assert operation["x-role"] in ("viewer", "operator", "admin")
        assert operation["tags"], name
        parts = {parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "path"}
        assert parts == set(re.findall(r"\{(\w+)\}", path)), name
        statuses = set(operation["responses"])
        assert {"401", "403", "422", "429", "503"} <= statuses, name
        assert "500" not in statuses, name
        if "{" in path:
            assert "404" in statuses, f"{method} {path} names something, and it may not be there"
        if "requestBody" in operation:
            assert {"413", "415"} <= statuses, name
        for status, response in operation["responses"].items():
            if status == "204":
                assert "content" not in response, name
            else:
                usual = "application/json" if int(status) < 400 else "application/problem+json"
                expected = FILES.get(name, {usual}) if status == "200" else {usual}
                assert set(response["content"]) == expected, name
                assert all(content["schema"] for content in response["content"].values()), name


async def test_whatever_can_be_changed_takes_if_match_and_has_an_etag(document: Any) -> None:
    without = set()
    etags = 0
    for method, _, operation in operations(document):
        takes = [p for p in operation.get("parameters", ()) if p["name"].lower() == "if-match"]
        assert ("412" in operation["responses"]) == bool(takes)
        if method in ("put", "patch", "delete") and not takes:
            without.add(operation["operationId"])
        etags += "ETag" in operation["responses"].get("200", {}).get("headers", {})
    assert without == set(NO_LOST_UPDATE)
    assert etags >= 10
