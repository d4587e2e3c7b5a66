"""The OpenAPI document: FastAPI's, with what it cannot know.

That is: which errors an operation answers, each a problem document; the headers of answers; the token that every
operation needs, and of which role. tests/contract/test_openapi.py holds it against a running registry.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.routing import compile_path

from bootlink_registry.api.etags import Tagged
from bootlink_registry.api.models.base import ProblemAnswer
from bootlink_registry.api.roles import role_for

MEDIA_TYPE: Final = "application/problem+json"  # RFC 9457, section 6.1

# What any operation may answer: no token, not its role, wrong parameters, too many failures, no database.
_ALWAYS: Final = (401, 403, 422, 429, 503)
_WITH_BODY: Final = (413, 415)
_WITH_IF_MATCH: Final = (412,)
_SCHEMAS: Final = "#/components/schemas/"

_HEADERS: Final = {
    "ETag": "for If-Match in a request that changes this",
    "Location": "the path of what was made",
    "Retry-After": "seconds to wait",
    "WWW-Authenticate": "Bearer",
}


def describe(app: FastAPI) -> dict[str, Any]:
    """The document of an application. It is made once."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas["Problem"] = ProblemAnswer.model_json_schema()
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        document["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "an API token: bootlink token add NAME"}
        }
        document["security"] = [{"token": []}]
        for path in document["paths"].values():
            for operation in path.values():
                _complete(operation)
        app.openapi_schema = document
    return app.openapi_schema


def methods_of(app: FastAPI, path: str) -> list[str]:
    """The methods that there are for a path."""
    found = {
        method.upper()
        for template, item in describe(app)["paths"].items()
        if compile_path(template)[0].match(path)
        for method in item
    }
    return sorted(found)


def _complete(operation: dict[str, Any]) -> None:
    operation["x-role"] = role_for(operation["operationId"])
    responses = operation["responses"]
    statuses = [*_ALWAYS]
    statuses += _WITH_BODY if "requestBody" in operation else ()
    statuses += _WITH_IF_MATCH if any(p["name"] == "if-match" for p in operation.get("parameters", ())) else ()
    for status in statuses:
        responses.setdefault(str(status), {})
    operation["responses"] = {status: responses[status] for status in sorted(responses)}
    for status, response in responses.items():
        if int(status) >= 400:
            response["description"] = HTTPStatus(int(status)).phrase
            response["content"] = {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}Problem"}}}
        for name in _headers(status, response):
            described: dict[str, Any] = {"description": _HEADERS[name], "schema": {"type": "string"}}
            # Of several answers with one status some may lack an ETag: a job has none.
            described["required"] = name != "ETag" or "anyOf" not in _schema(response)
            response.setdefault("headers", {})[name] = described


def _headers(status: str, response: dict[str, Any]) -> Iterator[str]:
    if status in ("201", "202"):
        yield "Location"
    if status in ("200", "201") and _names(_schema(response)) & _tagged(Tagged):
        yield "ETag"
    if status in ("429", "503"):
        yield "Retry-After"
    if status == "401":
        yield "WWW-Authenticate"


def _schema(response: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = response.get("content", {}).get("application/json", {}).get("schema", {})
    return schema


def _names(schema: dict[str, Any]) -> set[str]:
    """The models that a schema is, or is one of."""
    return {one.get("$ref", "").removeprefix(_SCHEMAS) for one in (schema, *schema.get("anyOf", ()))}


def _tagged(model: type[Tagged]) -> set[str]:
    """The names of all models that have an ETag."""
    return {model.__name__}.union(*(_tagged(derived) for derived in model.__subclasses__()))
