"""The page of settings: fresh, and every variable that our own pages speak of is one that something reads."""

from __future__ import annotations

import re
from pathlib import Path

from lab.settings_page import PAGE, page

ROOT = Path(__file__).parents[2]
NO_SETTINGS = {"BOOTLINK_EVENTS", "BOOTLINK_TEST_SPEED"}  # a stream of NATS; what CI tells the tests
HISTORY = "CHANGELOG.md"  # it tells of what was, too
SERVICES = ("DHCP", "TFTP", "BLOCKSTORE", "REGISTRY")


def test_the_page_of_settings_is_fresh() -> None:
    assert PAGE.read_text() == page(), "docs/settings.md is stale: run `make docs`"


def test_no_page_speaks_of_a_setting_that_there_is_not() -> None:
    known = set(re.findall(r"`(BOOTLINK_[A-Z_]+)`", page())) | NO_SETTINGS
    known |= {f"BOOTLINK_{service}_HEALTH_{what}" for service in SERVICES for what in ("HOST", "PORT")}
    known |= set(re.findall(r"\$\{(BOOTLINK_[A-Z_]+)", (ROOT / "compose.yaml").read_text()))  # what compose.yaml reads
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        unknown = set(re.findall(r"BOOTLINK_[A-Z_]*[A-Z]\b", path.read_text())) - known
        assert path.name == HISTORY or not unknown, (path.name, unknown)


def test_every_setting_says_what_it_is_for() -> None:
    rows = [line for line in page().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.endswith("|  |")] == []
