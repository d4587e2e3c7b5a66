"""The registry's advisory locks: one table, and PostgreSQL's ranges."""

from __future__ import annotations

import re
from pathlib import Path

from bootlink_registry import locks

PACKAGE = Path(locks.__file__).parent


def test_no_lock_is_numbered_elsewhere() -> None:
    number = re.compile(r"pg_(?:try_)?advisory\w*\((?:\s*\d|0x)|0x62[67]", re.ASCII)
    found = [path.name for path in PACKAGE.rglob("*.py") if number.search(path.read_text())]
    assert found == ["locks.py"]


def test_each_number_fits_its_kind_of_lock() -> None:
    assert all(0 < lock < 1 << 63 for lock in locks.Whole)
    assert all(0 < kind < 1 << 31 for kind in locks.Kind)
