"""The files that Prometheus and Grafana are given: alert rules, and every query in the dashboards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
CONFIGURATION: Final = DEPLOY / "prometheus" / "prometheus.yml"
ALERTS: Final = DEPLOY / "prometheus" / "alerts.yml"
DASHBOARDS: Final = tuple(sorted((DEPLOY / "grafana" / "dashboards").glob("*.json")))


def alerts() -> list[dict[str, Any]]:
    """The rules."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def dashboard(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def panels(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels of a dashboard, also those that rows hold."""
    for panel in content["panels"]:
        yield panel
        yield from panel.get("panels", ())


def queries() -> list[tuple[str, str]]:
    """Every query of every dashboard, and where it is: dashboard and panel."""
    return [
        (f"{path.stem}: {panel['title']}", target["expr"])
        for path in DASHBOARDS
        for panel in panels(dashboard(path))
        for target in panel.get("targets", ())
    ]
