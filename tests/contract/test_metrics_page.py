"""The page of metrics is fresh."""

from __future__ import annotations

from lab.metrics_page import PAGE, page


def test_the_page_of_metrics_is_fresh() -> None:
    assert PAGE.read_text() == page(), "docs/metrics.md is stale: run `make docs`"
