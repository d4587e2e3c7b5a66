"""An event of each kind, made from its model's own schema: every field given, also those that may be left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from bootlink_events import BootId, CloudEvent, EventKind

_AT: Final = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)
_BOOT: Final = str(BootId.mint())
_BY_FORMAT: Final = {"uuid": _BOOT, "date-time": _AT.isoformat(), "ipv4": "10.77.0.9"}
_BY_NAME: Final = {"mac": "52:54:00:12:34:56", "match": "arch=uefi-x64"}


def sample(kind: EventKind) -> CloudEvent:
    """An event of this kind, in its envelope."""
    schema = kind.model.model_json_schema(by_alias=True)
    data = _object(schema, schema.get("$defs", {}))
    return CloudEvent.of(kind.model.model_validate(data), source="/lab/node-1", at=_AT)


def _object(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(name, field, parts) for name, field in schema["properties"].items()}


def _value(name: str, field: Mapping[str, Any], parts: Mapping[str, Any]) -> Any:
    if "$ref" in field:
        part = parts[field["$ref"].rpartition("/")[2]]
        return _object(part, parts) if "properties" in part else _value(name, part, parts)
    if "anyOf" in field:
        return _value(name, field["anyOf"][0], parts)
    if "enum" in field:
        return field["enum"][0]
    if "const" in field:
        return field["const"]
    match field.get("type"):
        case "array":
            return [_value(name, field["items"], parts)] if "items" in field else []
        case "integer" | "number":
            return max(1, field.get("minimum", 1))
        case "boolean":
            return True
        case "string" if "format" in field:
            return _BY_FORMAT[field["format"]]
        case "string":
            return _BY_NAME.get(name, "x")
        case other:
            raise AssertionError(f"no sample of {name}, whose type is {other}")
