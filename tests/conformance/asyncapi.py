"""Compare docs/asyncapi.yaml with the JSON schema that AsyncAPI publishes: `make asyncapi`.

It is published on npm alone, so this needs npm and its registry, and is no part of `make test`; there, unit/events
compares the document with the specification's structure, and real events with the document.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import yaml

from conformance import npm

_PACKAGE: Final = "@asyncapi/specs@6.11.1"
_SHA512: Final = "A3WBLqAKGoJ2+6FWFtpjBlCQ1oFCcs4GxF7zsIGvNqp/klGUHjlA3aAcZ9XMMpLGE8zPeYDz2x9FmO6DSuKraQ=="
_SCHEMA: Final = "schemas/3.0.0-without-$id.json"
_DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"


def official_schema() -> Any:
    """AsyncAPI 3.0.0's schema, out of the package of this checksum."""
    with tempfile.TemporaryDirectory() as folder:
        return json.loads((npm.fetched(_PACKAGE, _SHA512, Path(folder)) / _SCHEMA).read_text())


def main() -> int:
    faults = list(jsonschema_rs.validator_for(official_schema()).iter_errors(yaml.safe_load(_DOCUMENT.read_text())))
    for fault in faults:
        sys.stderr.write(f"{'/'.join(map(str, fault.instance_path))}: {fault.message}\n")
    if not faults:
        sys.stdout.write(f"docs/asyncapi.yaml is valid by {_PACKAGE}, schema 3.0.0\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
