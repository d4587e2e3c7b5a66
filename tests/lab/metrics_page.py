"""Writes docs/metrics.md: every metric of the services, from where they are declared, and every alert.

`make docs` runs it; `tests/contract/test_metrics_page.py` fails where the page is stale, and
`tests/integration/test_prometheus.py` where a service tells something else. It lies here because nothing of the product
may import all services.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import bootlink_blockstore.metrics
import bootlink_dhcp.metrics
import bootlink_registry.metrics
import bootlink_tftp.metrics
from bootlink_blockstore import usage
from bootlink_runtime import Metric, planbook, vitals
from bootlink_runtime.metering import LEFT_OUT
from lab.runbook import alerts

PAGE: Final = Path(__file__).parents[2] / "docs" / "metrics.md"
COMMON: Final = (*vitals.METRICS, LEFT_OUT)
OWN: Final[Mapping[str, Sequence[Metric]]] = {
    "dhcp": bootlink_dhcp.metrics.METRICS,
    "tftp": bootlink_tftp.metrics.METRICS,
    "blockstore": (*usage.METRICS, *bootlink_blockstore.metrics.METRICS),
    "registry": bootlink_registry.metrics.METRICS,
}
SERVICES: Final = tuple(OWN)
_UNITS: Final = {"s": "seconds", "By": "bytes"}
_INTRODUCTION: Final = """\
# Metrics

Generated from the services' declarations and from `deploy/prometheus/alerts.yml` by `make docs`; do not edit.

Each service answers Prometheus at `/metrics` of its health port, which is any free one unless
`BOOTLINK_<SERVICE>_HEALTH_PORT` says which; `BOOTLINK_<SERVICE>_HEALTH_HOST` opens it to other machines. There is no
password: let your monitoring alone reach it. With `OTEL_EXPORTER_OTLP_ENDPOINT` the same metrics go to an OTLP
collector, under their names with dots, once a minute (`OTEL_METRIC_EXPORT_INTERVAL`).

`deploy/prometheus` has a configuration (for Kubernetes another one) and alert rules, `deploy/grafana` dashboards and
their provisioning:

```sh
export BOOTLINK_DHCP_HEALTH_PORT=8601 BOOTLINK_TFTP_HEALTH_PORT=8602   # before `bootlink up`
export BOOTLINK_BLOCKSTORE_HEALTH_PORT=8603 BOOTLINK_REGISTRY_HEALTH_PORT=8604
prometheus --config.file=deploy/prometheus/prometheus.yml
```

**CPU per operation** is CPU time over what was done in it, as the dashboards have it: the sum of
`rate(process_cpu_time_seconds_total{service="blockstore"}[5m])` over that of
`rate(bootlink_iscsi_operations_total[5m])`.

**Labels** have few values: *at most* says how many sets of them a metric can have. No label names a client, an address
or a boot; for those there are events and traces. What goes beyond is left out, and counted in
`bootlink_metrics_left_out_total`. Of a histogram each set has some twenty series.
"""


@dataclass(frozen=True, slots=True)
class Exported:
    """A metric as Prometheus sees it."""

    family: str  # as in # TYPE, without a counter's _total
    sample: str  # one series for each set of labels
    shown: str  # what people write in a query
    kind: str
    labels: tuple[str, ...]
    at_most: int
    tells: str
    name: str  # OpenTelemetry's


def exported(service: str) -> list[Exported]:
    """All metrics of a service."""
    plans = () if service == "registry" else planbook.METRICS
    return [_exported(metric) for metric in (*COMMON, *plans, *OWN[service])]


def _exported(metric: Metric) -> Exported:
    family = "_".join((*metric.name.replace(".", "_").split("_"), *filter(None, [_UNITS.get(metric.unit)])))
    sample = {"counter": f"{family}_total", "gauge": family, "histogram": f"{family}_count"}[metric.kind]
    shown = f"{family}_bucket" if metric.kind == "histogram" else sample
    labels = tuple(label.replace(".", "_") for label in metric.labels)
    return Exported(family, sample, shown, metric.kind, labels, metric.at_most, metric.tells, metric.name)


def page() -> str:
    """The page's text."""
    lines = [_INTRODUCTION, "## Every service", *_table(COMMON)]
    lines += ["", "## dhcp, tftp and blockstore", *_table(planbook.METRICS)]
    for service, metrics in OWN.items():
        lines += ["", f"## {service}", *_table(metrics)]
    lines += ["", "## Alerts", "", "| alert | when | what to do |", "|---|---|---|"]
    for rule in alerts():
        summary = rule["annotations"]["summary"].replace("{{ $labels.", "<").replace(" }}", ">").replace("{{ $", "<")
        lines.append(
            f"| `{rule['alert']}` ({rule['labels']['severity']}) | {summary} | {rule['annotations']['runbook']} |"
        )
    return "\n".join(lines) + "\n"


def _table(metrics: Sequence[Metric]) -> list[str]:
    rows = []
    for one in map(_exported, metrics):
        labels = ", ".join(f"`{label}`" for label in one.labels)
        rows.append(f"| `{one.shown}` | {one.kind} | {labels} | {one.at_most} | {one.tells} |")
    return ["", "| metric | kind | labels | at most | tells |", "|---|---|---|---|---|", *rows]


if __name__ == "__main__":
    PAGE.write_text(page())
