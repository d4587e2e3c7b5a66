"""docs/guarantees.md names tests; they must be there."""

from __future__ import annotations

import ast
import re

from soak.page import PAGE

ROOT = PAGE.parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def test_every_test_that_a_guarantee_names_exists_and_every_guarantee_names_one() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| [GDKS]\d+ \|", line)]
    assert len(rows) >= 25
    for row in rows:
        named = NAMED.findall(row)
        assert named, row
        for file, name in named:
            tree = ast.parse((ROOT / file).read_text())
            functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
            assert name in functions, f"{file} has no {name}"
