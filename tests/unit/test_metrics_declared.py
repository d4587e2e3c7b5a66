"""What services count and what they declare: every name that is counted is told as a metric, none without end."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import bootlink_blockstore.metrics
import bootlink_dhcp.metrics
import bootlink_registry.metrics
import bootlink_tftp.metrics
from bootlink_blockstore import usage
from bootlink_registry.api.measured import Requests
from bootlink_registry.webhooks.schedule import Verdict
from bootlink_runtime import Metric, Tally, planbook, vitals
from bootlink_runtime.metering import LEFT_OUT
from bootlink_wire.iscsi_codes import RejectReason

ROOT = Path(__file__).parents[2]
SERVICES: dict[str, ModuleType] = {
    "dhcp": bootlink_dhcp.metrics,
    "tftp": bootlink_tftp.metrics,
    "blockstore": bootlink_blockstore.metrics,
    "registry": bootlink_registry.metrics,
}
NAMING = {"count", "_on_error", "Decision"}  # what takes the name that something counts by
DECIDED = re.compile(r"(dropped|ignored)_\w+")
COMPUTED = {
    "blockstore": {f"pdu_{reason.name.lower()}" for reason in RejectReason},
    "registry": {f"clients_{outcome}" for outcome in ("enrolled", "known", "unknown", "full")}
    | {f"webhook_attempts_{verdict.value}" for verdict in Verdict},
}
SERIES_LIMIT = 5_000  # of one service: what a small Prometheus scrapes without a thought


def strings(node: ast.AST) -> Iterator[str]:
    """All constants in an argument, as both sides of `a if b else c`."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            yield part.value


def counted(folder: Path) -> set[str]:
    """The names that this package counts by, and those of its decisions."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        if path.name == "metrics.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Return) and node.value is not None:
                names |= {one for one in strings(node.value) if DECIDED.fullmatch(one)}
            if not isinstance(node, ast.Call) or not node.args:
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in NAMING and not isinstance(node.args[0], ast.JoinedStr | ast.Call):
                names |= set(strings(node.args[0]))
    return names


def declared(service: str) -> Sequence[Metric]:
    more = usage.METRICS if service == "blockstore" else ()
    plans = () if service == "registry" else planbook.METRICS
    own: Sequence[Metric] = SERVICES[service].METRICS
    return (LEFT_OUT, *vitals.METRICS, *plans, *more, *own)


@pytest.mark.parametrize("service", SERVICES)
def test_every_name_that_is_counted_is_told(service: str) -> None:
    tallies: Sequence[Tally] = (*SERVICES[service].TALLIES, *vitals.TALLIES)
    told = {name for tally in tallies for name in tally.shows} | vitals.COUNTED | planbook.COUNTED
    told |= getattr(SERVICES[service], "COUNTED", frozenset())
    names = counted(ROOT / f"services/{service}/bootlink_{service}") | COMPUTED.get(service, set())
    assert len(names) > 5
    assert names <= told, "counted, and no metric shows it"
    own = {name for tally in SERVICES[service].TALLIES for name in tally.shows}
    assert own <= names, "a metric shows what nobody counts"


def test_the_runtime_s_own_counts_are_told() -> None:
    told = {name for tally in vitals.TALLIES for name in tally.shows} | vitals.COUNTED | planbook.COUNTED
    assert counted(ROOT / "libs/runtime/bootlink_runtime") <= told


@pytest.mark.parametrize("service", SERVICES)
def test_no_service_can_tell_more_series_than_a_small_prometheus_takes(service: str) -> None:
    def series(metric: Metric) -> int:
        return metric.at_most * (22 if metric.kind == "histogram" else 1)

    assert sum(map(series, declared(service))) < SERIES_LIMIT


@pytest.mark.parametrize("service", SERVICES)
def test_names_are_unlike_and_say_their_kind(service: str) -> None:
    metrics = declared(service)
    assert [name for name, n in Counter(metric.name for metric in metrics).items() if n > 1] == []
    for metric in metrics:
        assert re.fullmatch(r"(bootlink|process)(\.[a-z][a-z_]*)+", metric.name), metric.name
        assert metric.tells
        assert not metric.tells[0].isupper() or metric.tells.startswith(("CPU", "HTTP")), metric.tells
        assert (metric.at_most > 1) <= bool(metric.labels), metric.name


def test_what_the_api_measures_has_an_end_whatever_is_asked() -> None:
    requests = Requests()
    for number in range(2_000):
        requests.record(f"METHOD{number}", number, 0.1)
    assert len(requests.all()) <= 5
    assert {key for key, _ in requests.all()} == {("other", status) for status in ("2xx", "3xx", "4xx", "5xx", "none")}
