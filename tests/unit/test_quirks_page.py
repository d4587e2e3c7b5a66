"""docs/quirks.md names, for each quirk, where it is handled and which test holds it; both must be there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "quirks.md").read_text().splitlines()
    if line.startswith("|") and not line.startswith(("|---", "| who |", "| what |"))
]
PYTHON = [path for part in ("libs", "services", "cli", "tests") for path in (ROOT / part).rglob("*.py")]
FILES = {str(path.relative_to(ROOT)) for path in PYTHON}
TESTS = {
    name
    for path in PYTHON
    if path.name.startswith("test_")
    for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: re.sub(r"\W+", "-", " ".join(row[:-2]))[:60])
def test_a_quirks_code_and_tests_exist(row: list[str]) -> None:
    named = re.findall(r"`([\w./-]+)`", row[-1])
    tests = [name for name in named if name.rpartition("/")[2].startswith("test_")]
    assert tests, f"no test is named for: {row[0]}"
    for name in named:
        assert name in TESTS or any(f"/{file}".endswith(f"/{name}") for file in FILES), name
