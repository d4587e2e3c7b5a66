"""Compare docs/asyncapi.yaml with the JSON schema that AsyncAPI publishes: `make asyncapi`.

It is published on npm alone, so this needs npm and its registry, and is no part of `make test`; there, unit/events
compares the document with the specification's structure, and real events with the document.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
import yaml

_PACKAGE: Final = "@asyncapi/specs@6.11.1"
_SHA512: Final = "A3WBLqAKGoJ2+6FWFtpjBlCQ1oFCcs4GxF7zsIGvNqp/klGUHjlA3aAcZ9XMMpLGE8zPeYDz2x9FmO6DSuKraQ=="
_SCHEMA: Final = "package/schemas/3.0.0-without-$id.json"
_DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "asyncapi.yaml"


def official_schema() -> Any:
    """AsyncAPI 3.0.0's schema, out of the package of this checksum."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, _PACKAGE]
        try:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            raise SystemExit("npm is missing: apt-get install npm") from None
        (package,) = Path(folder).iterdir()
        found = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if found != _SHA512:
            raise SystemExit(f"{_PACKAGE} has the checksum sha512-{found}, which is not the one that is known")
        with tarfile.open(package) as files:
            member = files.extractfile(_SCHEMA)
            assert member is not None
            return json.load(member)


def main() -> int:
    faults = list(jsonschema_rs.validator_for(official_schema()).iter_errors(yaml.safe_load(_DOCUMENT.read_text())))
    for fault in faults:
        sys.stderr.write(f"{'/'.join(map(str, fault.instance_path))}: {fault.message}\n")
    if not faults:
        sys.stdout.write(f"docs/asyncapi.yaml is valid by {_PACKAGE}, schema 3.0.0\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
